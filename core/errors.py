"""The exceptions that users of the suite meet.

Every message names who complains, which argument, what was expected, what came, and what to do
next. Each class also derives from the built-in exception a caller would expect.
"""


class TesseraError(Exception):
    """Base of every error that the suite raises on purpose."""


class ShapeError(TesseraError, ValueError):
    """A tensor has another shape than its role demands."""


class DtypeError(TesseraError, TypeError):
    """A tensor has another dtype or device than its role demands."""


class IndexRangeError(TesseraError, IndexError):
    """An index points outside the axis that it indexes."""


class PatternError(TesseraError, ValueError):
    """A block pattern contradicts itself, or does not belong to its values."""


class FormatError(TesseraError, ValueError):
    """A number format is unknown, or unfit for the use asked of it."""


class ConfigError(TesseraError, ValueError):
    """A setting has an unknown name or a value outside its bounds."""


class DataError(TesseraError, ValueError):
    """A file or a data set is missing, cut short, or not what it claims to be."""


class MachineError(TesseraError, ValueError):
    """A machine description lacks a number or holds an implausible one."""


class UnknownOpError(TesseraError, RuntimeError):
    """A traced program holds ops that the cost model has no rule for."""


class MemoryExceededError(TesseraError, RuntimeError):
    """A program needs more memory than a tile of the machine has."""
