"""Small documents of affinity benchmarks, and the tables they make: errors, no molecules."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from apps.lab.record import Record

SCHEMA = "tessera.chemistry.affinity/1"
METRICS = ("mse", "ci", "rm2", "mse_above_floor", "auroc_hit")
WHOLE = "whole answer"


def affinity_document(records: Sequence[Record]) -> dict[str, Any]:
    """Return what the records of one split say, one of each seed, as plain JSON values.

    `models` holds the metrics of each model, means over the tests and the seeds; `tests` the
    mean squared error of the whole answer in each test of each seed; `weights` the shares of the
    members in the whole answer.
    """
    first = records[0]
    each: dict[str, list[dict[str, float | None]]] = {WHOLE: [r.accuracy["test"] for r in records]}
    for kind in ("members", "baselines"):
        for name in getattr(first, kind):
            each[name] = [getattr(r, kind)[name]["test"] for r in records]
    return {
        "schema": SCHEMA,
        "config": first.config,
        "unit": first.data.unit,
        "sha256": first.data.sha256,
        "seeds": [r.seed for r in records],
        "n_train": first.data.n_train,
        "n_test": first.data.n_test,
        "models": {name: _means(scores, METRICS) for name, scores in each.items()},
        "weights": {
            name.removeprefix("weight_"): value
            for name, value in _means(
                each[WHOLE], [k for k in each[WHOLE][0] if k.startswith("weight_")]
            ).items()
        },
        "tests": [
            [s["mse"] for name, s in r.accuracy.items() if name.startswith("test-")]
            or [r.accuracy["test"]["mse"]]
            for r in records
        ],
    }


def affinity_markdown(document: dict[str, Any]) -> str:
    """Return the table of a document, best model first where errors are known."""
    columns = [c for c in METRICS if c in document["models"][WHOLE]]
    lines = [f"| {document['unit']} | " + " | ".join(columns) + " |"]
    lines.append("|---" + "|---:" * len(columns) + "|")
    for name, scores in document["models"].items():
        cells = [f"{scores[c]:.3f}" if c in scores else "-" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    parts = ", ".join(f"{name} {share:.2f}" for name, share in document["weights"].items() if share)
    tests = "; ".join(" ".join(f"{v:.3f}" for v in one) for one in document["tests"])
    return (
        f"{document['n_train']:,} train and {document['n_test']:,} test pairs, seeds "
        f"{', '.join(map(str, document['seeds']))}. Whole answer: {parts}. "
        f"Squared error of each test: {tests}.\n\n" + "\n".join(lines) + "\n"
    )


def _means(scores: Sequence[dict[str, float | None]], names: Sequence[str]) -> dict[str, float]:
    out = {}
    for name in names:
        known = [v for one in scores if (v := one.get(name)) is not None]
        if known:
            out[name] = mean(known)
    return out
