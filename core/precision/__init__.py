"""Number formats, rounding to them, and tensors squeezed into them."""

from core.precision.formats import FORMATS, Format, format_named
from core.precision.quantize import dequantize, fake_quantize, quantize
from core.precision.rounding import round_to_format

__all__ = [
    "FORMATS",
    "Format",
    "dequantize",
    "fake_quantize",
    "format_named",
    "quantize",
    "round_to_format",
]
