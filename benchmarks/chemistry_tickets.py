"""Lottery tickets: is it the pattern, the early weights, or neither that a pruned network owes to?

A network of live blocks is trained and pruned; the weights it had early on are kept. Then, at the
density it ended at and for as many epochs, these are trained: the same pattern from the weights
kept (the ticket), the same pattern from new random weights, and a random pattern. The dense network
and the pruned one stand beside them; test errors, the epoch picked on the valid part.

Source: Frankle et al., Linear mode connectivity and the lottery ticket hypothesis,
arXiv:1912.05671.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch

from apps.chemistry.config import FitConfig, ModelConfig, TrainConfig
from apps.chemistry.datasets import Table, load_table
from apps.chemistry.evaluate import score_rows
from apps.chemistry.fitting import fit_network
from apps.chemistry.network import BindingNetwork
from apps.chemistry.predictor import Predictor, build_network
from apps.lab.files import write_atomic
from apps.lab.variant import Variant
from core.sparse import PatternUpdater

SCHEMA = "tessera.chemistry.tickets/1"
REWIND = 0.05  # of all steps: when weights are kept
OTHER = 1000  # seeds of new weights lie this far from those of the first
KINDS = ("dense", "pruned", "ticket", "pattern, new weights", "random pattern")


def main(arguments: list[str]) -> int:
    """Print the mean test error of each kind; write all of them where asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chemistry_tickets", description=__doc__
    )
    parser.add_argument("--data", default="pocket", help="set or file")
    parser.add_argument("--density", type=float, nargs="+", default=[0.1])
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="JSON file")
    given = parser.parse_args(arguments)
    table = load_table(given.data)
    found: dict[str, dict[str, list[float]]] = {}
    for density in given.density:
        variant = Variant(density=density, block=given.block)
        each = [tickets(table, variant, given.epochs, seed) for seed in range(given.seeds)]
        found[str(density)] = {kind: [round(one[kind], 4) for one in each] for kind in KINDS}
        for kind, errors in found[str(density)].items():
            spread = f" +- {stdev(errors):.3f}" if len(errors) > 1 else ""
            print(f"density {density:<5} {kind:<22} rmse {mean(errors):.3f}{spread}", flush=True)
    if given.results:
        document = {
            "schema": SCHEMA,
            "data": table.name,
            "block": given.block,
            "n_epoch": given.epochs,
            "rewind": REWIND,
            "rmse": found,
        }
        write_atomic(given.results, json.dumps(document, indent=1) + "\n")
    return 0


def tickets(table: Table, variant: Variant, n_epoch: int, seed: int) -> dict[str, float]:
    """Return the test error of each of `KINDS` for one seed."""
    out: dict[str, float] = {}
    seen: list[PatternUpdater] = []

    def keep_early(updater: PatternUpdater) -> None:
        n_step = n_epoch * max(1, int((table.split == "train").sum()) // FitConfig().batch_size)
        step = max(1, round(REWIND * n_step))
        updater.rule = replace(updater.rule, rewind_step=step)
        seen.append(updater)

    out["dense"] = _trained(table, Variant(), "static", n_epoch, seed)[1]
    pruned, out["pruned"] = _trained(table, variant, "prune", n_epoch, seed, prepare=keep_early)
    seen[0].rewind()
    ticket = {name: tensor.clone() for name, tensor in pruned.state_dict().items()}

    patterns = {k: v for k, v in ticket.items() if k.endswith(("row_index", "col_index"))}
    other = build_network(
        _config(variant, "static", n_epoch), n_task=table.target.shape[1], seed=seed + OTHER
    ).state_dict()  # as many blocks a layer as pruning leaves: their weights serve any pattern
    for kind, start in (
        ("ticket", ticket),
        ("pattern, new weights", other | patterns),
        ("random pattern", None),
    ):
        out[kind] = _trained(table, variant, "static", n_epoch, seed, start=start)[1]
    return out


def _config(variant: Variant, method: str, n_epoch: int) -> TrainConfig:
    train = FitConfig.model_validate({"method": method, "n_epoch": n_epoch})
    return TrainConfig(variant=variant, model=ModelConfig(), train=train, kernel="off")


def _trained(
    table: Table,
    variant: Variant,
    method: str,
    n_epoch: int,
    seed: int,
    *,
    prepare: Callable[[PatternUpdater], None] | None = None,
    start: dict[str, torch.Tensor] | None = None,
) -> tuple[BindingNetwork, float]:
    config = _config(variant, method, n_epoch)
    model = build_network(config, n_task=table.target.shape[1], seed=seed)
    if start is not None:
        model.load_state_dict(start)
    model.set_scale(table.select("train").target)
    fit_network(model, table, config.train, seed, density=variant.density, prepare=prepare)
    predictor = Predictor(config, list(table.target_names), table.unit, [seed], [model.eval()])
    test = table.select("test")
    return model, score_rows(predictor.predict(test.graphs), test)["rmse"]


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
