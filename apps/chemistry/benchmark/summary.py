"""What a benchmark found, as a small JSON document, and the tables made of it.

The document holds errors and differences only, no molecule and no measured value.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from apps.chemistry.benchmark.run import CPU_FILE, TargetConfig, parts_folder, run_folder
from apps.chemistry.evaluate import PREDICTIONS_FILE
from apps.chemistry.hybrid import MEMBERS, paired_bootstrap
from apps.chemistry.summary import aligned
from apps.lab.record import Record
from core.errors import DataError

SCHEMA = "tessera.chemistry.benchmark/1"
# Column title -> where it stands in a record.
_COLUMNS = {
    "mean": "train_mean",
    "1-NN": "nearest_neighbour",
    "forest": "random_forest",
    "SVM": "svm_ecfp4",
    "kernel": "kernel",
    "trees": "trees",
    "joint": "joint",
    "network": "network",
    "one graph": "graph-",
    "graph": "graph",
    "k+g": "kernel_graph",
    "hybrid": "",
    "publ. SVM": "published_svm",
    "publ. graph": "published_graph",
}
_METRICS = ("rmse", "rmse_cliff", "rmse_seen", "rmse_unseen", "auc_published", "auc_repaired")
_PAIRS = (("hybrid", "kernel"), ("kernel_graph", "kernel"), ("hybrid", "svm_ecfp4"),
          ("kernel", "svm_ecfp4"), ("graph", "svm_ecfp4"), ("graph", "kernel"),
          ("graph", "network"), ("network", "svm_ecfp4"), ("joint", "kernel"),
          ("hybrid", "joint"))  # fmt: skip

Document = dict[str, Any]
Errors = dict[str, dict[str, dict[str, float]]]  # by set, title of `_COLUMNS` and metric
_TITLES = {key or "hybrid": title for title, key in _COLUMNS.items()}


def benchmark_document(records: Sequence[Record], out: Path) -> Document:
    """Return what the records and their predictions say; errors are means over seeds.

    `rmse_seen` and `rmse_unseen` are those of molecules that another set of the run has among its
    training rows, and of the others. `differences` are those of the mean RMSE over the sets and
    seeds, with a paired bootstrap over test molecules, the seeds of a set drawn together.
    """
    seeds = sorted({record.seed for record in records})
    by_seed = [_errors([record for record in records if record.seed == seed]) for seed in seeds]
    config = {k: v for k, v in records[0].config.items() if k not in ("data", "together")}
    return {
        "schema": SCHEMA,
        "seeds": seeds,
        "config": config,
        "n_together": len(records[0].config["together"]),
        "weights": {
            member: round(mean(r.accuracy["test"][f"weight_{member}"] or 0.0 for r in records), 4)
            for member in MEMBERS
            if f"weight_{member}" in records[0].accuracy["test"]
        },
        "cpu_s": _cpu_s(records, out),
        "errors": _mean_errors(by_seed),
        "spread": _spread(by_seed),
        "differences": _differences(records, out),
    }


def merge_documents(documents: Sequence[Document]) -> Document:
    """Return one document of several that differ in their seed alone.

    Parameters
    ----------
    documents : sequence of dict
        As `benchmark_document` gives them. A single one is returned as it is.

    Returns
    -------
    dict
        Errors, weights and CPU seconds are means over the seeds. Each of the `differences` is a
        mean too and has that of every seed, with its interval over test molecules, as `by_seed`;
        `n_better` counts the sets on which the mean error over the seeds is lower.

    Raises
    ------
    DataError
        If one holds several seeds, two hold the same, or sets or settings differ.
    """
    if len(documents) == 1:
        return documents[0]
    for document in documents:
        if len(document["seeds"]) != 1:
            raise DataError(
                f"merge: expected documents of one seed each, got one of {document['seeds']}; "
                "several in one document cannot be told apart again: leave it by itself"
            )
    ordered = sorted(documents, key=lambda document: document["seeds"])
    seeds = [document["seeds"][0] for document in ordered]
    if len(set(seeds)) < len(seeds):
        raise DataError(f"merge: expected another seed in each document, got {seeds}; drop one")
    first = ordered[0]
    for document in ordered[1:]:
        _check_alike(first, document)
    errors = _mean_errors([document["errors"] for document in ordered])
    return first | {
        "seeds": seeds,
        "weights": _means([document["weights"] for document in ordered], 4),
        "cpu_s": _means([document["cpu_s"] for document in ordered], 3),
        "errors": errors,
        "spread": _spread([document["errors"] for document in ordered]),
        "differences": _merged_differences(ordered, errors),
    }


def _check_alike(first: Document, other: Document) -> None:
    """Refuse documents of other sets or settings."""
    apart = [k for k in first["config"] | other["config"]
             if first["config"].get(k) != other["config"].get(k)]  # fmt: skip
    apart += ["the sets"] * (first["errors"].keys() != other["errors"].keys())
    apart += ["sets to a network"] * (first["n_together"] != other["n_together"])
    if apart:
        raise DataError(
            f"merge: the documents of seeds {first['seeds'][0]} and {other['seeds'][0]} differ in "
            f"{', '.join(apart)}; run one of them anew, or give it a name of its own"
        )


def _merged_differences(documents: Sequence[Document], errors: Errors) -> list[dict[str, Any]]:
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for document in documents:
        for one in document["differences"]:
            key = (one["ours"], one["other"], one["molecules"])
            found.setdefault(key, []).append({"seed": document["seeds"][0], **one})
    out = []
    for (ours, other, molecules), each in found.items():
        if len(each) < len(documents):
            continue
        metric = "rmse" if molecules == "all" else f"rmse_{molecules}"
        pairs = [
            [places.get(_TITLES[name], {}).get(metric) for name in (ours, other)]
            for places in errors.values()
        ]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        out.append(
            {
                "ours": ours,
                "other": other,
                "molecules": molecules,
                "difference": round(mean(one["difference"] for one in each), 5),
                "by_seed": [{k: one[k] for k in ("seed", "difference", "low", "high")}
                            for one in each],
                "n_better": sum(a < b for a, b in known),
                "n": len(known),
            }
        )  # fmt: skip
    return out


def _errors(records: Sequence[Record]) -> Errors:
    """Return the errors of one seed."""
    errors: Errors = {}
    for record in records:
        place = {"": record.accuracy} | record.members | record.baselines
        errors[record.data.name] = {}
        for title, key in _COLUMNS.items():
            # a name that ends in a dash stands for all that are numbered so
            each = [
                scores.get("test", {})
                for label, scores in place.items()
                if label == key or (key.endswith("-") and label.startswith(key))
            ]
            found = {m: _mean([one.get(m) for one in each]) for m in _METRICS}
            errors[record.data.name][title] = {m: v for m, v in found.items() if v is not None}
    return errors


def _mean_errors(by_seed: Sequence[Errors]) -> Errors:
    """Return the errors that all seeds have, means over them."""
    return {
        name: {
            title: _means([errors[name].get(title, {}) for errors in by_seed], 4)
            for title in places
        }
        for name, places in by_seed[0].items()
    }


def _means(each: Sequence[dict[str, float]], digits: int) -> dict[str, float]:
    """Return the means of what all have, rounded."""
    found = {name: _mean([one.get(name) for one in each]) for name in each[0]}
    return {name: round(value, digits) for name, value in found.items() if value is not None}


def _spread(by_seed: Sequence[Errors]) -> dict[str, dict[str, float]]:
    """Return by title and metric the standard deviation over seeds of the mean over the sets."""
    out: dict[str, dict[str, float]] = {}
    for title, key in _COLUMNS.items():
        for metric in () if key.startswith("published") else _METRICS:
            means = [_mean([p.get(title, {}).get(metric) for p in e.values()]) for e in by_seed]
            known = [value for value in means if value is not None]
            if len(known) == len(by_seed) > 1:
                out.setdefault(title, {})[metric] = round(stdev(known), 4)
    return out


def _cpu_s(records: Sequence[Record], out: Path) -> dict[str, float]:
    """Return the CPU seconds by kind of stage, all sets together, mean over the seeds."""
    settings = {r.config_sha256: TargetConfig.model_validate(r.config) for r in records}
    places = {parts_folder(out, settings[r.config_sha256], r.seed) for r in records}
    total: dict[str, float] = {}
    for place in sorted(places):
        for kind, spent in json.loads((place / CPU_FILE).read_text(encoding="utf-8")).items():
            total[kind] = total.get(kind, 0.0) + spent
    n_seed = len({record.seed for record in records})
    return {kind: round(spent / n_seed, 3) for kind, spent in total.items()}


def benchmark_summary(document: Document) -> str:
    """Return the tables of a document as text."""
    parts = []
    for metric, (head, *rows) in _tables(document).items():
        parts.append(aligned([[f"test {metric}", *head[1:]], *rows]))
    parts.append(_weights(document))
    parts.append(aligned(_difference_rows(document)))
    return "\n\n".join(parts)


def benchmark_markdown(document: Document) -> str:
    """Return the tables of a document as markdown."""
    parts = []
    for metric, rows in _tables(document).items():
        parts.append(f"Test `{metric}`\n\n{_markdown(rows)}")
    parts += [_weights(document), _markdown(_difference_rows(document))]
    return "\n\n".join(parts) + "\n"


def read_document(path: Path) -> Document:
    """Read what `benchmark_document` gave, from a JSON file.

    Raises
    ------
    DataError
        If the file is something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no benchmark document: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise DataError(f"{path} is no benchmark document of schema {SCHEMA}; make it anew")
    return document


def _tables(document: Document) -> dict[str, list[list[str]]]:
    """Return rows of cells by metric: a head, one row per set, and their mean."""
    out = {}
    columns = [k for k in _COLUMNS if any(each.get(k) for each in document["errors"].values())]
    for metric in _METRICS:
        lines = {
            name: [each.get(title, {}).get(metric) for title in columns]
            for name, each in document["errors"].items()
        }
        if not any(value is not None for line in lines.values() for value in line):
            continue
        rows = [["set", *columns], *([name, *map(_text, line)] for name, line in lines.items())]
        if len(lines) > 1:
            means = [_mean(column) for column in zip(*lines.values(), strict=True)]
            rows.append(["mean", *map(_text, means)])
        spread = [document.get("spread", {}).get(title, {}).get(metric) for title in columns]
        if any(value is not None for value in spread):
            rows.append([f"s.d. of it, {len(document['seeds'])} seeds", *map(_text, spread)])
        out[metric] = rows
    return out


def _weights(document: Document) -> str:
    parts = ", ".join(f"{member} {w:.2f}" for member, w in document["weights"].items())
    seeds = ", ".join(map(str, document["seeds"]))
    spent = document["cpu_s"]
    cost = ", ".join(f"{kind} {value / 60:.1f}" for kind, value in spent.items())
    return (
        f"hybrid, weights from held-out folds: {parts}; seeds {seeds}\n"
        f"CPU minutes of a seed, all sets: {sum(spent.values()) / 60:.1f} ({cost})"
    )


def _difference_rows(document: Document) -> list[list[str]]:
    is_merged = any("by_seed" in one for one in document["differences"])
    head = ["", "95 % interval"]
    if is_merged:
        head = ["mean of seeds", *(f"seed {seed}, 95 % interval" for seed in document["seeds"])]
    rows = [["mean rmse, difference", "molecules", *head, "better on"]]
    for one in document["differences"]:
        cells = [f"{one['difference']:+.4f}"]
        if is_merged:
            cells += [f"{seed['difference']:+.4f} {_interval(seed)}" for seed in one["by_seed"]]
        else:
            cells.append(_interval(one))
        count = f"{one['n_better']} of {one['n']}"
        rows.append([f"{one['ours']} - {one['other']}", one["molecules"], *cells, count])
    return rows


def _interval(one: dict[str, Any]) -> str:
    return f"[{one['low']:+.4f}, {one['high']:+.4f}]"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    rule = "|---" + "|---:" * (len(rows[0]) - 1) + "|"
    return "\n".join([head, rule, *body])


def _differences(records: Sequence[Record], out: Path) -> list[dict[str, Any]]:
    answers = _by_set(records, out)
    found: list[dict[str, Any]] = []
    is_joint = len(records[0].config["together"]) > 1
    for molecules in ("all", "seen", "unseen") if is_joint else ("all",):
        rows = [_rows(one, molecules) for one in answers]
        used = [(one, kept) for one, kept in zip(answers, rows, strict=True) if kept.any()]
        if not used:
            continue
        known = [pair for pair in _PAIRS if set(pair) <= set(used[0][0])]
        for ours, other in known if molecules == "all" else known[:2]:
            a, b = ([(one[k] - one["measured"])[:, kept] for one, kept in used]
                    for k in (ours, other))  # fmt: skip
            difference, low, high = paired_bootstrap(a, b)
            found.append(
                {
                    "ours": ours,
                    "other": other,
                    "molecules": molecules,
                    "difference": round(difference, 5),
                    "low": round(low, 5),
                    "high": round(high, 5),
                    "n_better": sum(_rmse(x) < _rmse(y) for x, y in zip(a, b, strict=True)),
                    "n": len(a),
                }
            )
    return found


def _by_set(records: Sequence[Record], out: Path) -> list[dict[str, np.ndarray]]:
    """Return float [seed, row] by column, once per set; per seed where its test rows vary."""
    groups: dict[tuple[str, bytes], list[dict[str, np.ndarray]]] = {}
    for record in records:
        one = _answers(run_folder(out, record.config["data"]["source"], record.seed))
        groups.setdefault((record.data.name, one["measured"].tobytes()), []).append(one)
    return [
        {name: np.stack([one[name] for one in group]) for name in group[0]}
        for group in groups.values()
    ]


def _rmse(errors: np.ndarray) -> float:
    """Return the mean over the seeds, from float [seed, row]."""
    return float(np.sqrt((errors**2).mean(axis=1)).mean())


def _rows(answers: dict[str, np.ndarray], molecules: str) -> np.ndarray:
    if molecules == "all":
        return np.ones(answers["seen"].shape[1], dtype=bool)
    return (answers["seen"][0] > 0) == (molecules == "seen")


def _answers(folder: Path) -> dict[str, np.ndarray]:
    """Return float [row] by column of the predictions of a set."""
    with (folder / PREDICTIONS_FILE).open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    names = {"measured", "seen"} | {name for pair in _PAIRS for name in pair}
    known = names & set(rows[0])
    return {name: np.array([float(row[name]) for row in rows]) for name in known}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
