"""What the command prints of runs: accuracy beside the baselines, cost by machine."""

import json
from collections.abc import Sequence
from statistics import mean, stdev

from apps.lab.record import CostEntry, Record, record_content

_COLUMNS = ("rmse", "mae", "r2", "spearman", "rmse_cliff")


def summary(records: Sequence[Record]) -> str:
    """Return the tables of one run, or of several seeds of it (mean and standard deviation)."""
    first = records[0]
    data = first.data
    seeds = ", ".join(str(record.seed) for record in records)
    head = (
        f"{data.name} ({data.unit}): {data.n_train} train, {data.n_valid} valid, "
        f"{data.n_test} test; variant {first.variant}; seed {seeds}"
    )
    split = next((s for s in ("test", "valid", "train") if s in first.accuracy), "train")
    return f"{head}\n\n{split} part\n{accuracy_table(records, split)}\n\n" + cost_table(first.cost)


def accuracy_table(records: Sequence[Record], split: str) -> str:
    """Return a line for the answer, its parts and each baseline: mean, +- sd over several seeds."""
    answer = [r.accuracy[split] for r in records]
    if "kernel" in records[0].members:
        scores = {"whole answer": answer}
        parts = {
            "kernel": "kernel mix",
            "joint": "joint kernel",
            "graph": "graph networks",
            "network": "their last layers",
        }
        for name, title in parts.items():
            if all(split in r.members.get(name, {}) for r in records):
                scores[title] = [r.members[name][split] for r in records]
    else:
        scores = {"graph network": answer}
    for name in records[0].baselines:
        scores[name] = [r.baselines[name][split] for r in records]
    columns = [c for c in _COLUMNS if any(c in one for one in answer)]
    columns += sorted({c for one in answer for c in one} - set(_COLUMNS))
    rows = [["", *columns]]
    for name, each in scores.items():
        rows.append([name, *(_spread([one.get(c) for one in each]) for c in columns)])
    return aligned(rows)


def cost_table(entries: Sequence[CostEntry]) -> str:
    """Return one line per machine and phase: modelled time, energy, memory, utilisation."""
    rows = [["machine", "phase", "time", "interval", "energy", "tile memory", "use"]]
    for entry in entries:
        low, high = entry.time_interval_s
        memory = f"{entry.peak_tile_memory_byte / 1024:,.0f} KiB"
        rows.append(
            [
                entry.machine,
                entry.phase,
                f"{entry.time_s * 1e6:,.1f} us",
                f"{low * 1e6:,.1f}-{high * 1e6:,.1f}",
                f"{entry.energy_j * 1e3:,.3g} mJ",
                memory + ("" if entry.fits else " (too much)"),
                f"{100 * entry.utilisation:.2g} %",
            ]
        )
    return aligned(rows)


def records_json(records: Sequence[Record]) -> str:
    """Return the record, or the list of records of several seeds, as JSON."""
    whole = [record_content(record) for record in records]
    return json.dumps(whole[0] if len(whole) == 1 else whole, indent=1)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text, the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" +- {stdev(known):.3f}" if len(known) > 1 else ""
    return f"{mean(known):.3f}{spread}"
