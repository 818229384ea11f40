"""What number formats and sparsity do to the learned radiation, on days that it has not seen.

Each network is trained like the first, from the same columns, seed and number of epochs, and its
errors are also given as multiples of the first one's: dense fp32 of the same width. Run it as
``python benchmarks/weather_formats.py``; columns are kept in `--folder` for the next run.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from apps.lab.variant import Variant
from apps.weather.learned import ColumnsConfig, LearnedRadiation, NetworkConfig, cached_columns
from apps.weather.learned.columns import split_index
from apps.weather.learned.fitting import fit_emulator, make_emulator
from apps.weather.learned.scores import score_scheme
from apps.weather.physics import Clouds

#: density, weight format, activation format
VARIANTS = (
    (1.0, "fp32", "fp32"),
    (1.0, "int8", "int8"),
    (1.0, "fp8_e4m3", "fp8_e4m3"),
    (1.0, "int4", "fp32"),
    (0.25, "int8", "int8"),
    (0.125, "int8", "int8"),
)
HEAD = (
    f"{'variant':28s}{'LW':>8s}{'ratio':>7s}{'SW':>8s}{'ratio':>7s}{'bias LW':>9s}{'bias SW':>9s}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--n-epoch", type=int, default=65)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, help="append a JSON line for each variant")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = ColumnsConfig()
    found, _ = cached_columns(config, seed=args.seed, folder=args.folder)
    index = split_index(found.time_s, config)
    parts = {name: found.take(rows) for name, rows in index.items()}
    network = NetworkConfig(width=args.width, n_epoch=args.n_epoch)
    dense: dict[str, float] = {}
    print(f"K/day on {len(parts['test']):,} columns of unseen days\n{HEAD}", flush=True)
    for density, weight, activation in VARIANTS:
        variant = Variant(density=density, weight_format=weight, activation_format=activation)
        generator = torch.Generator().manual_seed(args.seed)
        n_level = found.columns.temperature.shape[1]
        net = make_emulator(n_level, network, variant.layer_spec(), generator)
        begun = time.process_time()
        fit_emulator(net, parts["train"], parts["valid"], network, seed=args.seed, clouds=Clouds())
        train_cpu_s = time.process_time() - begun
        scores = score_scheme(LearnedRadiation(net), parts["test"])
        dense = dense or scores
        lw, sw = (f"{kind}_rmse_k_per_day" for kind in ("lw", "sw"))
        print(
            f"{variant.name:28s}{scores[lw]:8.4f}{scores[lw] / dense[lw]:7.2f}"
            f"{scores[sw]:8.4f}{scores[sw] / dense[sw]:7.2f}"
            f"{scores['lw_bias_k_per_day']:9.4f}{scores['sw_bias_k_per_day']:9.4f}",
            flush=True,
        )
        if args.out:
            row: dict[str, Any] = {"variant": variant.model_dump(), "network": network.model_dump()}
            row |= {"seed": args.seed, "train_cpu_s": train_cpu_s, **scores}
            with args.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
