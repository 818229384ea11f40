"""Learned radiation in climates that it has not seen: another sea surface, and doubled CO2.

Networks of one recipe that learned from more and more: the control climate alone, with columns of
other carbon dioxide, with columns warmed at unchanged relative humidity, and with runs of two other
climates as well (the default). None has seen the seas that it is tested on: one 4 K warmer, and one
that cools faster away from the equator (CONTROL of Neale and Hoskins 2000, where training has
QOBS). The first network is blind to carbon dioxide and must miss the forcing: the negative control.
"""

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from apps.lab.config import load_config
from apps.weather.learned import (
    ColumnsConfig,
    LabelledColumns,
    LearnedRadiation,
    cached_columns,
    load_emulator,
    save_emulator,
    score_scheme,
)
from apps.weather.learned.columns import Climate, split_index
from apps.weather.learned.fitting import fit_emulator, make_emulator
from apps.weather.learned.scores import forcing
from apps.weather.physics import Clouds, ExactRadiation
from apps.weather.train import TrainConfig
from benchmarks.weather import present

NOTHING = {"other_co2_share": 0.0, "other_warmth_share": 0.0, "other_climates": ()}
#: What each network does without.
WITHOUT: dict[str, dict[str, Any]] = {
    "control alone": NOTHING,
    "and other CO2": {"other_warmth_share": 0.0, "other_climates": ()},
    "and warmed columns": {"other_climates": ()},
    "and other climates": {},
}
WARMING_K = 4.0


def tested(base: ColumnsConfig, climate: Climate, args: argparse.Namespace) -> LabelledColumns:
    """Columns of ten days in a climate that no network learns from."""
    config = base.model_copy(
        update={
            **NOTHING,
            "climate": climate,
            **{"skip_day": args.skip_day, "n_day": 10, "train_share": 0.1, "gap_day": 0.5},
        }
    )
    found, _ = cached_columns(config, seed=args.seed + 1, folder=args.folder)
    return found.take(split_index(found.time_s, config)["test"])


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each network."""
    settings = load_config(TrainConfig, overrides=args.set)
    base, network = settings.columns, settings.network
    if any(climate.warming_k == WARMING_K for climate in base.other_climates):
        raise SystemExit(f"columns.other_climates must not hold the +{WARMING_K:g} K of the test")
    unseen = {
        name: tested(base, climate, args)
        for name, climate in (
            ("warmer", Climate(warming_k=WARMING_K)),
            ("reshaped", Climate(sst="control")),
        )
    }
    exact = ExactRadiation(base.label_longwave, base.label_shortwave)
    for name in args.only or WITHOUT:
        config: ColumnsConfig = base.model_copy(update=WITHOUT[name])
        found, digest = cached_columns(config, seed=args.seed, folder=args.folder)
        index = split_index(found.time_s, config)
        parts = {name: found.take(rows) for name, rows in index.items()}
        key = hashlib.sha256(f"{digest} {network.model_dump_json()}".encode()).hexdigest()[:12]
        path = args.folder / f"climate-{key}.safetensors"
        if not path.exists():
            generator = torch.Generator().manual_seed(args.seed)
            n_level = found.columns.temperature.shape[1]
            net = make_emulator(n_level, network, settings.variant.layer_spec(), generator)
            fit_emulator(
                net, parts["train"], parts["valid"], network, seed=args.seed, clouds=Clouds()
            )
            save_emulator(path, net, {"columns": config.model_dump(mode="json")})
        scheme = LearnedRadiation(load_emulator(path)[0])
        usual = score_scheme(scheme, parts["test"])
        there = {where: score_scheme(scheme, part) for where, part in unseen.items()}
        some = parts["test"].take(torch.arange(0, len(parts["test"]), 4))
        true = forcing(exact, some)
        yield {
            "learned_from": name,
            **{k: usual[f"{k}_rmse_k_per_day"] for k in ("lw", "sw")},
            **{
                f"{k}_{where}": scores[f"{k}_rmse_k_per_day"]
                for where, scores in there.items()
                for k in ("lw", "sw")
            },
            **{
                f"{k}_{where}_ratio": scores[f"{k}_rmse_k_per_day"] / usual[f"{k}_rmse_k_per_day"]
                for where, scores in there.items()
                for k in ("lw", "sw")
            },
            "forcing_w_m2": true,
            "forcing_error": forcing(scheme, some) / true - 1.0,
            "seed": args.seed,
        }


COLUMNS = ("learned_from", "lw", "lw_warmer", "lw_warmer_ratio", "lw_reshaped_ratio")
COLUMNS += ("sw", "sw_warmer", "sw_warmer_ratio", "sw_reshaped_ratio")
COLUMNS += ("forcing_w_m2", "forcing_error")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part climates")
    parser.add_argument("--set", action="append", default=[], help="as in `tessera weather train`")
    parser.add_argument("--only", action="append", choices=list(WITHOUT), help="one network")
    parser.add_argument("--skip-day", type=int, default=15, help="before the test's days")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="keeps columns, networks")
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    title = (
        f"Error in K/day in the usual climate and in a sea {WARMING_K:g} K warmer and in one of "
    )
    title += "another shape, both unseen; forcing by doubled CO2 and its relative error."
    present(
        "climates", rows(args), COLUMNS, title=title, key=("learned_from", "seed"),
        is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0
