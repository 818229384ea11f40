"""The learned scheme in one pass over tiles of columns: fused.cpp as a function of tensors.

Features, layers, heating rates and fluxes of 32 columns stay in the first-level cache. It
multiplies float32, bf16 pairs and 8-bit integers where the processor does; other formats, other
dtypes, other devices and hosts without a compiler take the torch route, which gives the same up to
the order of its sums (bf16 layers add in float32 here and round their sums to bf16 there).
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apps.weather.atmosphere.constants import (
    DAY_S,
    GAS_CONSTANT_VAPOUR,
    GRAVITY,
    HEAT_CAPACITY,
    LATENT_HEAT,
)
from apps.weather.learned.emulator import CLOUD_M2_PER_KG, SUNSET, Emulator, EvenSwish
from apps.weather.physics.clouds import Clouds
from apps.weather.physics.columns import Columns, RadiationResult
from apps.weather.physics.thermodynamics import (
    EPSILON,
    FREEZING_K,
    SATURATION_AT_FREEZING_PA,
    VAPOUR_SHARE_MAX,
)
from core import BlockPattern, BlockSparseLinear, DenseLinear, FrozenLinear, dequantize
from core.kernels.load import library

# Most outputs of a strip, and the features of a 32-bit unit by kind, as in fused.cpp.
_ROW = 8
_PER_UNIT = {"fp32": 1, "bf16": 2, "int8": 4}
_KIND = {name: i for i, name in enumerate(_PER_UNIT)}

_P, _I, _F = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _I) for name in ("kind", "n_strip", "n_row", "reads", "writes", "hands")),
        ("inverse", _F),
        *((name, _P) for name in ("first", "unit", "weight", "begin")),
        *((name, _P) for name in ("scale", "bias", "factor", "shift")),
    )


class _Air(ctypes.Structure):
    _fields_ = (
        ("n_column", ctypes.c_int64),
        ("n_level", _I),
        ("n_layer", _I),
        *((name, _P) for name in ("temperature", "humidity", "pressure", "pressure_half")),
        *((name, _P) for name in ("sst", "cos_zenith", "albedo", "co2")),
        *((name, _P) for name in ("input_mean", "input_scale", "output_mean", "output_scale")),
        *((name, _F) for name in ("critical", "critical_ground", "water_share", "full_pressure")),
        *((name, _F) for name in ("dark", "sunset")),
        *((name, _F) for name in ("freezing", "at_freezing", "rate", "most", "epsilon")),
        *((name, _F) for name in ("gravity", "heat_capacity", "day")),
        *((name, _P) for name in RadiationResult._fields),
    )


@functools.cache
def _library() -> ctypes.CDLL | None:
    found = library(folder=Path(__file__).resolve().parent)
    if found is not None:
        found.tessera_fused.argtypes = [_P, _P]
        found.tessera_fused.restype = None
    return found


def fused(emulator: Emulator, clouds: Clouds) -> FusedNetwork | None:
    """Give the fused form of a frozen emulator; None where host or formats have none."""
    kernels = _library()
    if kernels is None or emulator.kind != "mlp":
        return None
    kinds = [_kind_of(layer) for layer in emulator.net if not isinstance(layer, _ACTIVATIONS)]
    able = kernels.tessera_fused_kinds()
    if any(kind is None or not able >> _KIND[kind] & 1 for kind in kinds):
        return None
    # Integers have one scale, that of the layer before: the ends of a narrow network have none.
    if "int8" in (kinds[0], kinds[-1]) or _room(emulator) > kernels.tessera_fused_most():
        return None
    return FusedNetwork(kernels, emulator, clouds)


class FusedNetwork:
    """A frozen emulator as strips of packed weights; call it with float32 columns on the CPU."""

    def __init__(self, kernels: ctypes.CDLL, emulator: Emulator, clouds: Clouds) -> None:
        self._kernels, self.n_level = kernels, emulator.n_level
        self._kept: list[Tensor] = []
        linear = [part for part in emulator.net if not isinstance(part, _ACTIVATIONS)]
        after = [part for part in emulator.net if isinstance(part, _ACTIVATIONS)]
        kinds = [str(_kind_of(layer)) for layer in linear]
        width, begin = _whole(emulator.width), _whole(len(emulator.input_mean))
        layers = []
        for i, layer in enumerate(linear):
            is_last = i == len(after)
            n_read = emulator.width if i else len(emulator.input_mean)
            packed = self._packed(layer, None if is_last else after[i], n_read)
            packed.reads = begin + (0 if is_last else i - 1) * width if i else 0
            packed.writes = begin + i * width
            if not is_last:
                packed.hands = 1 << _KIND[kinds[i + 1]] | 1 << _KIND[kinds[-1]]
                packed.inverse = 1.0 / _reach(linear[i + 1]) if kinds[i + 1] == "int8" else 1.0
            layers.append(packed)
        self._layers = (_Layer * len(layers))(*layers)
        self._air = _Air(
            n_level=self.n_level,
            n_layer=len(layers),
            critical=clouds.critical_humidity,
            critical_ground=clouds.critical_humidity_ground,
            water_share=clouds.water_share,
            full_pressure=clouds.full_pressure,
            dark=CLOUD_M2_PER_KG,
            sunset=SUNSET,
            freezing=FREEZING_K,
            at_freezing=SATURATION_AT_FREEZING_PA,
            rate=LATENT_HEAT / GAS_CONSTANT_VAPOUR,
            most=VAPOUR_SHARE_MAX,
            epsilon=EPSILON,
            gravity=GRAVITY,
            heat_capacity=HEAT_CAPACITY,
            day=DAY_S,
            **{
                f"{end}_{part}": self._hold(getattr(emulator, f"{end}_{part}"))
                for end in ("input", "output")
                for part in ("mean", "scale")
            },
        )

    def __call__(self, columns: Columns) -> RadiationResult | None:
        """Heating rates and fluxes; None for columns that it does not take."""
        t = columns.temperature
        if t.dtype != torch.float32 or t.device.type != "cpu" or t.shape[1] != self.n_level:
            return None
        air = _Air.from_buffer_copy(self._air)
        n, level = t.shape
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("temperature", "humidity", "pressure"), (n, level)
        )
        shapes |= {"pressure_half": (n, level + 1)}
        shapes |= dict.fromkeys(("sst", "cos_zenith", "albedo", "co2"), (n,))
        fields = []
        for name, shape in shapes.items():
            field = getattr(columns, "co2_ppmv" if name == "co2" else name)
            if field.shape != shape:
                return None
            if field.dtype != t.dtype or not field.is_contiguous():
                field = field.to(t.dtype).contiguous()
            fields.append(field)
            setattr(air, name, field.data_ptr())
        air.n_column = n
        heating = t.new_empty(2, n, level)
        flux = t.new_empty(4, n)
        result = RadiationResult(*heating.unbind(), *flux.unbind())
        for name, out in zip(result._fields, result, strict=True):
            setattr(air, name, out.data_ptr())
        self._kernels.tessera_fused(ctypes.byref(air), self._layers)
        return result

    def _hold(self, tensor: Tensor) -> int:
        """Keep a tensor alive and give its address."""
        self._kept.append(tensor.contiguous())
        return self._kept[-1].data_ptr()

    def _packed(self, layer: nn.Module, after: nn.Module | None, n_read: int) -> _Layer:
        """Weights of a layer in strips, each with the units of inputs that it reads.

        Hidden layers fill their last strip up, so that what they hand on is whole units; the last
        layer, whose `after` is None, has strips of equal height. `n_read` is how many features a
        layer has that this one reads, perhaps several of them.
        """
        kind = _kind_of(layer)
        assert kind is not None
        codes, scale = _dense(layer, kind)
        n_out, size = len(codes), _PER_UNIT[kind]
        n_strip = -(-n_out // _ROW)
        n_row = _ROW if after is not None else -(-n_out // n_strip)
        parts = [F.pad(part, (0, -n_read % _ROW)) for part in codes.split(n_read, dim=1)]
        codes = F.pad(torch.cat(parts, dim=1), (0, 0, 0, n_strip * n_row - n_out))
        strips = codes.view(n_strip, n_row, -1, size)
        is_live = (strips != 0).any(3).any(1)
        first = F.pad(is_live.sum(1).cumsum(0), (1, 0)).int()
        unit = torch.nonzero(is_live)[:, 1].int()
        weight = strips.transpose(1, 2)[is_live].contiguous()
        weight = weight.view(torch.float32) if kind != "fp32" else weight

        def spread(x: Tensor | None, fill: float) -> int:
            x = torch.full((n_out,), fill) if x is None else x.detach().float().reshape(-1)[:n_out]
            return self._hold(F.pad(x, (0, len(codes) - n_out), value=fill))

        if kind == "int8":
            assert scale is not None
            scale = scale.reshape(-1) * _reach(layer)
        return _Layer(
            kind=_KIND[kind],
            n_strip=n_strip,
            n_row=n_row,
            first=self._hold(first),
            unit=self._hold(unit),
            weight=self._hold(weight),
            begin=self._hold(-128 * codes.long().sum(1).int() if kind == "int8" else first),
            scale=spread(scale, 1.0),
            bias=spread(layer.bias, 0.0),  # type: ignore[arg-type]
            factor=spread(getattr(after, "factor", None), 1.0),
            shift=spread(getattr(after, "shift", None), 0.0),
        )


_ACTIVATIONS = (nn.Hardswish, EvenSwish)


def _whole(n: int) -> int:
    """Fill `n` features up to whole strips."""
    return n + -n % _ROW


def _room(emulator: Emulator) -> int:
    """Count the features of all layers together, filled up."""
    n_in, n_out = len(emulator.input_mean), len(emulator.output_mean)
    return _whole(n_in) + emulator.n_hidden * _whole(emulator.width) + _whole(n_out)


def _reach(layer: nn.Module) -> float:
    """Give the scale of what an integer layer reads."""
    assert isinstance(layer, FrozenLinear)
    assert layer.activation_range is not None
    assert layer.activation_range.scale is not None
    return float(layer.activation_range.scale)


def _kind_of(layer: nn.Module) -> str | None:
    """Give what a layer's numbers travel as, None where fused.cpp has no such kind."""
    if not isinstance(layer, DenseLinear | BlockSparseLinear | FrozenLinear):
        return None
    weight, activation = layer.roles.weight.name, layer.roles.activation.name
    if activation == "int8":
        is_ready = layer.activation_range is not None and layer.activation_range.scale is not None
        return "int8" if weight == "int8" and is_ready else None
    if activation == "fp32" and layer.roles.compute_dtype is None:
        return "fp32"
    return "bf16" if layer.roles.compute_dtype == torch.bfloat16 else None


def _dense(layer: nn.Module, kind: str) -> tuple[Tensor, Tensor | None]:
    """Give weights [row, feature] as they are multiplied, and an integer row's scale."""
    scale: Tensor | None = None
    pattern: BlockPattern | None = None
    if isinstance(layer, FrozenLinear):
        codes, scale = layer.codes, layer.scale
        pattern = layer.pattern
    elif isinstance(layer, BlockSparseLinear):
        codes, pattern = layer.values.detach(), layer.pattern
    else:
        assert isinstance(layer, DenseLinear)
        codes = layer.weight.detach()
    if scale is not None and kind != "int8":
        by_block = scale if pattern is None else _by_block(scale, pattern)
        codes = dequantize(codes, by_block, torch.bfloat16 if kind == "bf16" else torch.float32)
        scale = None
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}[kind]
    codes = codes.to(dtype)
    if pattern is None:
        return codes, scale
    (n_row, n_column), (br, bc) = pattern.grid, pattern.block
    whole = codes.new_zeros(n_row, n_column, br, bc)
    whole[pattern.row_index.long(), pattern.col_index.long()] = codes
    whole = whole.transpose(1, 2).reshape(n_row * br, n_column * bc)
    return whole[: pattern.shape[0], : pattern.shape[1]], scale


def _by_block(scale: Tensor, pattern: BlockPattern) -> Tensor:
    return scale.view(pattern.grid[0], pattern.block[0], 1)[pattern.row_index.long()]
