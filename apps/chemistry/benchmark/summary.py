"""What the benchmark prints: one line per target, the means, and what each part is worth."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from apps.chemistry.benchmark.hybrid import paired_bootstrap
from apps.chemistry.benchmark.run import run_folder
from apps.chemistry.evaluate import PREDICTIONS_FILE
from apps.chemistry.summary import aligned
from apps.lab.record import Record

# Column title -> where it stands in a record.
_COLUMNS = {
    "mean": "train_mean",
    "1-NN": "nearest_neighbour",
    "forest": "random_forest",
    "SVM": "svm_ecfp4",
    "kernel": "kernel",
    "trees": "trees",
    "graph": "graph",
    "k+g": "kernel_graph",
    "hybrid": "",
    "publ. SVM": "published_svm",
    "publ. graph": "published_graph",
}
_PAIRS = (("hybrid", "kernel"), ("hybrid", "svm_ecfp4"), ("kernel", "svm_ecfp4"),
          ("graph", "svm_ecfp4"))  # fmt: skip


def benchmark_summary(records: Sequence[Record], out: Path) -> str:
    """Return the tables of rmse and rmse_cliff, means over seeds, and the paired differences."""
    names = list(dict.fromkeys(record.data.name for record in records))
    parts = []
    for metric in ("rmse", "rmse_cliff", "auc_published", "auc_repaired"):
        lines = []
        for name in names:
            each = [_line(record, metric) for record in records if record.data.name == name]
            lines.append([_mean(column) for column in zip(*each, strict=True)])
        if any(value is not None for line in lines for value in line):
            rows = [[name, *map(_text, line)] for name, line in zip(names, lines, strict=True)]
            if len(names) > 1:
                rows.append(["mean", *(_text(_mean(c)) for c in zip(*lines, strict=True))])
            parts.append(aligned([[f"test {metric}", *_COLUMNS], *rows]))
    weights = [record.accuracy["test"].get("weight_graph") or 0.0 for record in records]
    parts.append(
        f"weight of the graph in the hybrid: mean {mean(weights):.2f}, "
        f"{min(weights):.2f} to {max(weights):.2f}"
    )
    parts.append(aligned([["mean rmse, difference", "", "95 % interval", "better on"],
                          *_differences(records, out)]))  # fmt: skip
    return "\n\n".join(parts)


def _differences(records: Sequence[Record], out: Path) -> list[list[str]]:
    errors = [
        _errors(run_folder(out, record.config["data"]["source"], record.seed)) for record in records
    ]
    rows = []
    for ours, other in _PAIRS:
        a, b = [e[ours] for e in errors], [e[other] for e in errors]
        difference, low, high = paired_bootstrap(a, b)
        n_better = sum(bool(np.mean(x**2) < np.mean(y**2)) for x, y in zip(a, b, strict=True))
        interval = f"[{low:+.4f}, {high:+.4f}]"
        count = f"{n_better} of {len(a)}"
        rows.append([f"{ours} - {other}", f"{difference:+.4f}", interval, count])
    return rows


def _errors(folder: Path) -> dict[str, np.ndarray]:
    """Return the errors on the test rows by model, float64 [row]."""
    with (folder / PREDICTIONS_FILE).open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    measured = np.array([float(row["measured"]) for row in rows])
    return {
        name: np.array([float(row[name]) for row in rows]) - measured
        for name in ("hybrid", "kernel", "graph", "svm_ecfp4")
    }


def _line(record: Record, metric: str) -> list[float | None]:
    places = {"": record.accuracy} | record.members | record.baselines
    return [places.get(key, {}).get("test", {}).get(metric) for key in _COLUMNS.values()]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
