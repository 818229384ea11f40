"""The memory that a process keeps between the steps of a training."""

import ctypes
import sys

# Numbers that mallopt gives its parameters (malloc.h of the GNU C library).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory(n_byte: int = 1 << 29) -> bool:
    """Have the C library keep up to `n_byte` of freed memory instead of giving it back.

    A training step allocates and frees the same megabytes again and again. Where the C library
    returns them to the system, every page is cleared and mapped anew: at batch 64 and width 304
    that was a sixth of the time of a sparse training step of the binding network. Concerns the
    whole process and changes no result; the long commands of Tessera call it as they start.

    Returns
    -------
    bool
        False where there is no GNU C library, and nothing is changed.

    Examples
    --------
    >>> import core
    >>> core.keep_freed_memory() in (True, False)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    # 32 MiB is the most that the library accepts for blocks of their own.
    wishes = (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, n_byte), (_TOP_PAD, 1 << 24)
    return all([mallopt(what, value) == 1 for what, value in wishes])
