"""Number formats, rounding to them, tensors squeezed into them, and watch over what that costs."""

from core.precision.block_scale import dequantize_blocks, quantize_blocks
from core.precision.formats import FORMATS, Format, format_named
from core.precision.loss_scale import LossScaler
from core.precision.monitor import (
    Fit,
    Limits,
    PrecisionMonitor,
    PrecisionWarning,
    Reading,
    fit_of,
)
from core.precision.policy import RECIPES, PrecisionPolicy
from core.precision.quantize import dequantize, fake_quantize, quantize
from core.precision.rounding import round_to_format
from core.precision.running import RunningRange

__all__ = [
    "FORMATS",
    "RECIPES",
    "Fit",
    "Format",
    "Limits",
    "LossScaler",
    "PrecisionMonitor",
    "PrecisionPolicy",
    "PrecisionWarning",
    "Reading",
    "RunningRange",
    "dequantize",
    "dequantize_blocks",
    "fake_quantize",
    "fit_of",
    "format_named",
    "quantize",
    "quantize_blocks",
    "round_to_format",
]
