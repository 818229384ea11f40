"""How good a radiation scheme is on columns that it has not seen, and the lines it must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from apps.weather.atmosphere.constants import DAY_S
from apps.weather.forecast.verify import radiation_cpu_s
from apps.weather.learned.columns import LabelledColumns
from apps.weather.learned.emulator import features, result_from_targets, targets
from apps.weather.physics import Clouds, Columns, ExactRadiation, Radiation, RadiationResult

# Exact schemes with fewer points: longwave, shortwave.
COARSE_POINTS = {"exact_16": (16, 8), "exact_41": (41, 16)}


def level_errors(
    result: RadiationResult, label: RadiationResult, cos_zenith: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Error and label of the heating, K/day, by kind; shortwave in the sun only."""
    day = cos_zenith > 0
    pairs = {
        "lw": (result.heating_lw, label.heating_lw),
        "sw": (result.heating_sw[day], label.heating_sw[day]),
    }
    return {
        kind: ((got - true).double() * DAY_S, true.double() * DAY_S)
        for kind, (got, true) in pairs.items()
    }


def score(result: RadiationResult, label: RadiationResult, cos_zenith: Tensor) -> dict[str, float]:
    """Metrics of a record: RMSE and bias of the heating, R2 of its worst level, flux errors.

    The shortwave is scored by day only: night, where every scheme gives nought, would flatter it.
    The R2 of a level compares with the mean of that level over the columns scored.
    """
    out: dict[str, float] = {}
    worst = []
    for kind, (error, true) in level_errors(result, label, cos_zenith).items():
        out[f"{kind}_rmse_k_per_day"] = float(error.square().mean().sqrt())
        out[f"{kind}_bias_k_per_day"] = float(error.mean())
        out[f"{kind}_bias_level_k_per_day"] = float(error.mean(0).abs().max())
        spread = (true - true.mean(0)).square().mean(0)
        r2 = 1.0 - error.square().mean(0) / spread
        out[f"{kind}_r2_min"] = float(r2.min())
        worst.append(float(r2.min()))
    out["r2_min"] = min(worst)
    day = cos_zenith > 0
    olr = (result.toa_lw - label.toa_lw).double()
    asr = (result.toa_sw - label.toa_sw).double()[day]
    out["olr_rmse_w_m2"], out["olr_bias_w_m2"] = (
        float(olr.square().mean().sqrt()),
        float(olr.mean()),
    )
    out["asr_rmse_w_m2"], out["asr_bias_w_m2"] = (
        float(asr.square().mean().sqrt()),
        float(asr.mean()),
    )
    return out


def score_scheme(scheme: Radiation, part: LabelledColumns) -> dict[str, float]:
    """Score a scheme on labelled columns."""
    return score(scheme(part.columns), part.label, part.columns.cos_zenith)


def forcing(scheme: Radiation, part: LabelledColumns) -> float:
    """Instantaneous forcing by doubled CO2, W/m2: what the planet then keeps, mean of columns."""
    doubled = part.columns._replace(co2_ppmv=2.0 * part.columns.co2_ppmv)
    return float((scheme(part.columns).toa_lw - scheme(doubled).toa_lw).double().mean())


def forcing_error(scheme: Radiation, part: LabelledColumns, exact: Radiation) -> float:
    """Error of the forcing by doubled CO2, W/m2.

    A scheme that does not see carbon dioxide misses all of it (3 to 4 W/m2).
    """
    return forcing(scheme, part) - forcing(exact, part)


def cpu_ratio(
    slow: Radiation, fast: Radiation, columns: Columns, *, n_round: int = 5, n_fast: int = 40
) -> float:
    """CPU time of one call of `slow` over that of `fast`, on one thread, the quickest of each.

    The two take turns and fill about the same time, so that both find the quiet moments of a
    shared machine: with equal numbers of calls the short ones found none and lost a factor of two.
    """
    times: dict[str, list[float]] = {"slow": [], "fast": []}
    for _ in range(n_round):
        times["slow"].append(radiation_cpu_s(slow, columns, n_repeat=1))
        times["fast"].append(radiation_cpu_s(fast, columns, n_repeat=n_fast))
    return min(times["slow"]) / min(times["fast"])


class _MeanProfile:
    """What the training columns say on average; the shortwave follows the sun."""

    def __init__(self, train: LabelledColumns) -> None:
        sun = train.columns.cos_zenith.clamp(min=0)[:, None]
        y = targets(train.label, train.columns.cos_zenith)
        n = y.shape[1] // 2
        self.mean = torch.cat([y[:, :n].mean(0), (y[:, n:] * sun**2).sum(0) / (sun**2).sum(0)])

    def __call__(self, columns: Columns) -> RadiationResult:
        return result_from_targets(self.mean.expand(len(columns.sst), -1), columns)


class _Linear:
    """Least squares from the network's own inputs."""

    def __init__(self, train: LabelledColumns, clouds: Clouds) -> None:
        self.clouds = clouds
        x = features(train.columns, clouds).double()
        y = targets(train.label, train.columns.cos_zenith).double()
        self.mean, self.scale = x.mean(0), x.std(0) + 1e-9 * x.abs().amax(0) + 1e-12
        sun = train.columns.cos_zenith.clamp(min=0).double()[:, None]
        n = y.shape[1] // 2
        inputs = self._inputs(x)
        lw = torch.linalg.lstsq(inputs, y[:, :n], driver="gelsd").solution
        sw = torch.linalg.lstsq(inputs * sun, y[:, n:] * sun, driver="gelsd").solution
        self.weight = torch.cat([lw, sw], dim=1)

    def _inputs(self, x: Tensor) -> Tensor:
        scaled = (x - self.mean) / self.scale
        return torch.cat([scaled, torch.ones_like(x[:, :1])], dim=1)

    def __call__(self, columns: Columns) -> RadiationResult:
        y = self._inputs(features(columns, self.clouds).double()) @ self.weight
        return result_from_targets(y.to(columns.sst), columns)


def baselines(
    train: LabelledColumns, parts: dict[str, LabelledColumns], clouds: Clouds
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of the lines to beat: mean profile, linear regression, fewer spectral points."""
    schemes: dict[str, Radiation] = {
        "train_mean": _MeanProfile(train),
        "linear": _Linear(train, clouds),
    }
    for name, points in COARSE_POINTS.items():
        schemes[name] = ExactRadiation(*points, clouds)
    return {
        name: {split: score_scheme(scheme, part) for split, part in parts.items()}
        for name, scheme in schemes.items()
    }
