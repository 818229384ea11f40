"""What number formats and sparsity do to the learned radiation, on days that it has not seen.

All networks have one width, one recipe, one seed and the same columns; errors are also given as
multiples of the first one's, dense fp32. First and last layers keep their blocks and have wider
formats than the hidden ones (`apps.weather.learned.emulator.end_spec`).
"""

import argparse
import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from apps.lab.config import load_config
from apps.lab.variant import Variant
from apps.weather import learned
from apps.weather.learned import (
    Emulator,
    LearnedRadiation,
    cached_columns,
    load_emulator,
    save_emulator,
    score_scheme,
)
from apps.weather.learned.columns import split_index
from apps.weather.learned.fitting import fit_emulator, make_emulator
from apps.weather.physics import Clouds
from apps.weather.train import TrainConfig
from benchmarks.weather import present

#: density, weight format, activation format
VARIANTS = (
    (1.0, "fp32", "fp32"),
    (1.0, "bf16", "bf16"),
    (1.0, "int8", "int8"),
    (1.0, "fp8_e4m3", "fp8_e4m3"),
    (1.0, "int4", "fp32"),
    (0.25, "int8", "int8"),
    (0.125, "int8", "int8"),
)


def live_share(net: Emulator) -> float:
    """Give the share of the multiply-adds of the whole network that live blocks leave."""
    live = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    sizes = [len(net.input_mean), *[net.width] * net.n_hidden]
    whole = sum(a * b for a, b in itertools.pairwise(sizes))
    return live / (whole + net.n_hidden * net.width * len(net.output_mean))


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train each variant and give its scores on `args.split`."""
    overrides = [*args.set, *([f"network.width={args.width}"] if args.width else [])]
    settings = load_config(TrainConfig, overrides=overrides)
    config, network = settings.columns, settings.network
    found, _ = cached_columns(config, seed=args.seed, folder=args.folder)
    index = split_index(found.time_s, config)
    parts = {name: found.take(rows) for name, rows in index.items()}
    dense: dict[str, float] = {}
    code = sorted(Path(learned.__file__).parent.glob("*.py"))
    sources = hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()
    for density, weight, activation in VARIANTS:
        variant = Variant(density=density, weight_format=weight, activation_format=activation)
        if args.only and variant.name not in args.only and dense:
            continue
        key = f"{settings.model_dump_json(exclude={'variant'})} {args.seed} {sources}"
        key = hashlib.sha256(key.encode()).hexdigest()[:12]
        path = args.folder / f"format-{variant.name}-{key}.safetensors"
        if not path.exists():
            generator = torch.Generator().manual_seed(args.seed)
            n_level = found.columns.temperature.shape[1]
            net = make_emulator(n_level, network, variant.layer_spec(), generator)
            begun = time.process_time()
            fit_emulator(
                net, parts["train"], parts["valid"], network, seed=args.seed, clouds=Clouds()
            )
            train = {"cpu_s": time.process_time() - begun}
            save_emulator(path, net, {**train, "columns": config.model_dump(mode="json")})
        net, meta = load_emulator(path)
        scores = score_scheme(LearnedRadiation(net), parts[args.split])
        dense = dense or scores
        ratios = {
            f"{kind}_ratio": scores[f"{kind}_rmse_k_per_day"] / dense[f"{kind}_rmse_k_per_day"]
            for kind in ("lw", "sw")
        }
        yield {
            "variant": variant.name,
            "width": network.width,
            "live_share": live_share(net),
            "n_epoch": network.n_epoch,
            "seed": args.seed,
            "split": args.split,
            "train_cpu_s": meta["cpu_s"],
            **ratios,
            **scores,
        }


COLUMNS = (
    "variant",
    "width",
    "live_share",
    "lw_rmse_k_per_day",
    "lw_ratio",
    "sw_rmse_k_per_day",
    "sw_ratio",
)
COLUMNS += ("lw_bias_k_per_day", "sw_bias_k_per_day", "r2_min")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each variant, `dense-fp32` first."""
    parser = argparse.ArgumentParser(prog="tessera bench weather --part formats")
    parser.add_argument("--width", type=int, help="of the networks; the recipe's, if left out")
    parser.add_argument("--set", action="append", default=[], help="as in `tessera weather train`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a variant, after dense-fp32")
    parser.add_argument("--split", choices=("valid", "test"), default="test")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs"), help="keeps columns and networks"
    )
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    parser.add_argument("--keep", action="store_true", help="add rows to results/weather.jsonl")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    title = "Error in K/day by format and density, and over that of dense fp32 of the same width. "
    title += "Formats and density are of the hidden layers; where these have 8 bits or fewer the "
    title += "first and the last layer have bf16. live_share: of all multiply-adds."
    present(
        "formats", rows(args), COLUMNS, title=title, key=("variant", "width", "split", "seed"),
        is_json=args.json, is_kept=args.keep,
    )  # fmt: skip
    return 0
