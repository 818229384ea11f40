"""The learned scheme: a small network of each column that keeps the column's energy."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apps.lab.checkpoint import load_checkpoint, made_from, save_checkpoint
from apps.weather.atmosphere.constants import DAY_S, HEAT_CAPACITY
from apps.weather.physics.clouds import Clouds
from apps.weather.physics.columns import Columns, RadiationResult
from apps.weather.physics.thermodynamics import layer_mass
from core import BlockSparseLinear, DenseLinear, Format, LayerSpec, build_linear
from core.errors import DataError
from core.precision import format_named

LAYERS = (DenseLinear, BlockSparseLinear)
EMULATOR_FILE = "emulator.safetensors"

N_SURFACE_FEATURE = 6
READ_FORMAT = "bf16"
# The beam's path grows as 1 / cos_zenith; this keeps the input finite at sunset.
SUNSET = 0.1
# Makes the cloud's input saturate about as its emission does (diffuse, 150 m2/kg).
CLOUD_M2_PER_KG = 100.0


def features(columns: Columns, clouds: Clouds) -> Tensor:
    """Give what the network reads, [column, 4 level + 6], before normalisation.

    Temperature, fourth root of humidity, square root of cloud water and its emissivity, then
    surface pressure, surface temperature, cosine of the zenith angle and an inverse of it,
    albedo, log CO2.
    """
    sun = columns.cos_zenith.clamp(min=0)
    surface = [
        columns.pressure_half[:, -1],
        columns.sst,
        sun,
        1.0 / (sun + SUNSET),
        columns.albedo,
        columns.co2_ppmv.log(),
    ]
    humidity = columns.humidity.clamp(min=0).sqrt().sqrt()
    water = clouds.water_path(columns)
    dark = 1.0 - torch.exp(-CLOUD_M2_PER_KG * water)
    return torch.cat(
        [columns.temperature, humidity, water.sqrt(), dark, torch.stack(surface, 1)], dim=1
    )


def targets(label: RadiationResult, cos_zenith: Tensor) -> Tensor:
    """Give what the network is to learn, [column, 2 level + 2]; nought for the sun's part by night.

    Longwave heating in K/day and outgoing flux in W/m2, then shortwave heating and absorbed flux
    of a column as if the sun stood overhead: both divided by `cos_zenith`.
    """
    overhead = torch.where(cos_zenith > 0, 1.0 / cos_zenith.clamp(min=1e-6), 0.0)[:, None]
    return torch.cat(
        [
            label.heating_lw * DAY_S,
            label.toa_lw[:, None],
            label.heating_sw * DAY_S * overhead,
            label.toa_sw[:, None] * overhead,
        ],
        dim=1,
    )


def end_spec(spec: LayerSpec) -> LayerSpec:
    """Give how the first and the last layer of a network of `spec` are built: dense.

    In `READ_FORMAT` where weights or activations have 8 bits or fewer; the ends are 44 % of the
    multiply-adds of a network of width 96 and eight levels.
    """
    formats = spec.weight_format, spec.activation_format
    if any(format_named(name).needs_scale for name in formats):
        formats = READ_FORMAT, READ_FORMAT
    return replace(spec, density=1.0, weight_format=formats[0], activation_format=formats[1])


class EvenSwish(nn.Module):
    """Hard swish, then a factor and a shift for each unit, so that one scale serves them all.

    They are 1 and 0 until `apps.weather.learned.narrow.even_out` sets them.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(width))
        self.register_buffer("shift", torch.zeros(width))

    def scaled(self, x: Tensor) -> Tensor:
        """Apply the factor and the shift alone."""
        return torch.addcmul(self.shift, x, self.factor)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., width] to the same shape."""
        return self.scaled(F.hardswish(x))


class Emulator(nn.Module):
    """A multilayer perceptron between normalised features and normalised targets.

    The last layer reads every hidden layer: what the first can say alone then never passes through
    a sparse or narrow one. It takes 5 % off the error in fp32 and 20 % off that in fp8.
    Hidden layers have the density and the number formats of `spec`. The first and the last keep
    all their blocks and 16 bits (`end_spec`), as is usual: 8 bits tell temperatures half a kelvin
    apart, which alone triples the error.

    Parameters
    ----------
    n_level : int
    width, n_hidden : int
        Neurons of a hidden layer, and hidden layers.
    spec : LayerSpec
    generator : torch.Generator
        Source of the initial weights.
    """

    input_mean: Tensor
    input_scale: Tensor
    output_mean: Tensor
    output_scale: Tensor
    kind: Literal["mlp", "gru"] = "mlp"

    def __init__(
        self,
        n_level: int,
        *,
        width: int = 96,
        n_hidden: int = 2,
        spec: LayerSpec | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_level, self.width, self.n_hidden = n_level, width, n_hidden
        self.spec = spec or LayerSpec()
        n_in, n_out = 4 * n_level + N_SURFACE_FEATURE, 2 * n_level + 2
        self._build(end_spec(self.spec), generator)
        for name, size in (("input", n_in), ("output", n_out)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))

    def _build(self, ends: LayerSpec, generator: torch.Generator) -> None:
        """Make the layers; `ends` is how those next to the features and the targets are built."""
        spec, width, n_hidden = self.spec, self.width, self.n_hidden
        is_even = format_named(spec.activation_format).needs_scale
        n_in, n_out = 4 * self.n_level + N_SURFACE_FEATURE, 2 * self.n_level + 2
        layers: list[nn.Module] = [build_linear(n_in, width, ends, generator=generator)]
        for _ in range(n_hidden - 1):
            layers.append(EvenSwish(width) if is_even else nn.Hardswish())
            layers.append(build_linear(width, width, spec, generator=generator))
        layers += [nn.Hardswish(), build_linear(n_hidden * width, n_out, ends, generator=generator)]
        self.net = nn.Sequential(*layers)

    def normalise(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        """Set means and scales from training features and targets, [column, ...].

        `weight` [column] counts each column's sun in the statistics of the shortwave.
        """
        n = y.shape[1] // 2
        weight = torch.cat([torch.ones(len(y), n), weight[:, None].expand(-1, n)], 1).to(y)
        self.input_mean.copy_(x.mean(0))
        spread = x.std(0)
        # An input that never varied stays at nought, whatever it is later.
        self.input_scale.copy_(torch.where(spread > 1e-6 * x.abs().amax(0), 1.0 / spread, 0.0))
        mean = (y * weight).sum(0) / weight.sum(0)
        self.output_mean.copy_(mean)
        self.output_scale.copy_((((y - mean) ** 2 * weight).sum(0) / weight.sum(0)).sqrt())

    def with_formats(self, weight_format: str, activation_format: str) -> Emulator:
        """Give the same network, with the same weights, in other formats."""
        spec = replace(self.spec, weight_format=weight_format, activation_format=activation_format)
        same = type(self)(
            self.n_level,
            width=self.width,
            n_hidden=self.n_hidden,
            spec=spec,
            generator=torch.Generator(),
        )
        same.adopt(self)
        return same

    def read_by(self, i: int, scaled: Tensor) -> Tensor:
        """Give what ``net[i]`` reads when the network sees normalised features."""
        parts = list(self.net)[:i]
        x, hidden = scaled, []
        for k, part in enumerate(parts):
            x = part(x)
            if k % 2:  # an activation
                hidden.append(x)
        return torch.cat(hidden, dim=1) if i == len(self.net) - 1 and len(hidden) > 1 else x

    def layers(self) -> list[int]:
        """Give the places in `net` of the linear layers."""
        return [i for i, part in enumerate(self.net) if isinstance(part, LAYERS)]

    def format_of(self, i: int) -> Format:
        """Give the format of the weights of ``net[i]``, a linear layer."""
        layer = self.net[i]
        assert isinstance(layer, LAYERS)
        return layer.roles.weight

    def take_normalisation(self, other: Emulator) -> None:
        """Take over means and scales alone."""
        for name, buffer in other.named_buffers(recurse=False):
            getattr(self, name).copy_(buffer)

    def adopt(self, other: Emulator) -> None:
        """Take over weights, pattern and normalisation, and what else both networks have."""
        mine = self.state_dict()
        self.load_state_dict(
            {k: v for k, v in other.state_dict().items() if k in mine}, strict=False
        )

    def shift_output(self, by: Tensor) -> None:
        """Add to the normalised targets, [2 level + 2], in fp32 in every format."""
        bias = self.net[-1].bias
        assert isinstance(bias, Tensor)
        bias += by

    def scaled(self, x: Tensor) -> Tensor:
        """Give normalised features."""
        return (x - self.input_mean) * self.input_scale

    def forward(self, scaled: Tensor) -> Tensor:
        """Map normalised features to normalised targets."""
        last = len(self.net) - 1
        return self.net[last](self.read_by(last, scaled))


def result_from_targets(target: Tensor, columns: Columns) -> RadiationResult:
    """Give the result whose `targets` these are; the surface fluxes close the column."""
    n_level = columns.temperature.shape[1]
    sun = columns.cos_zenith.clamp(min=0)[:, None]
    heating_lw = target[:, :n_level] / DAY_S
    toa_lw = target[:, n_level]
    lit = target[:, n_level + 1 :] * sun
    heating_sw, toa_sw = lit[:, :n_level] / DAY_S, lit[:, n_level]
    capacity = HEAT_CAPACITY * layer_mass(columns.pressure_half)
    return RadiationResult(
        heating_lw=heating_lw,
        heating_sw=heating_sw,
        toa_lw=toa_lw,
        toa_sw=toa_sw,
        surface_lw=-toa_lw - (heating_lw * capacity).sum(1),
        surface_sw=toa_sw - (heating_sw * capacity).sum(1),
    )


def emulator_class(kind: str) -> type[Emulator]:
    """Give the class of a kind of network, "mlp" or "gru"; KeyError for others."""
    from apps.weather.learned.recurrent import RecurrentEmulator

    return {"mlp": Emulator, "gru": RecurrentEmulator}[kind]


def save_emulator(path: Path, emulator: Emulator, meta: dict[str, Any]) -> Path:
    """Write a trained network, its size and formats, and `meta` (JSON values) to one file."""
    spec = emulator.spec
    size = {"n_level": emulator.n_level, "width": emulator.width, "n_hidden": emulator.n_hidden}
    about = {"kind": emulator.kind, "size": size, "spec": asdict(spec), "meta": meta}
    return save_checkpoint(path, emulator.state_dict(), about)


def load_emulator(path: Path) -> tuple[Emulator, dict[str, Any]]:
    """Read a network that `save_emulator` wrote, and its `meta`.

    `path` may be the folder of a training run.

    Raises
    ------
    DataError
        If the file is missing, damaged, or not an emulator's.
    """
    path = Path(path)
    path = path / EMULATOR_FILE if path.is_dir() else path
    if path.exists() and path.suffix != ".safetensors":
        raise DataError(f"{path} is not an emulator; give the folder of a `weather train` run")
    tensors, meta = load_checkpoint(path)
    if not {"kind", "size", "spec", "meta"} <= meta.keys():
        raise DataError(f"{path} is not an emulator; give the folder of a `weather train` run")
    with made_from(path):
        if meta["size"].get("n_hidden", 0) > len(tensors):
            raise DataError(f"{meta['size']['n_hidden']} hidden layers of {len(tensors)} tensors")
        generator = torch.Generator().manual_seed(0)
        emulator = emulator_class(meta["kind"])(
            **meta["size"], spec=LayerSpec(**meta["spec"]), generator=generator
        )
        emulator.load_state_dict(tensors)
    return emulator.eval(), meta["meta"]
