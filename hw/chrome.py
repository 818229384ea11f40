"""A cost report as a trace-event file, for chrome://tracing or Perfetto."""

from __future__ import annotations

from typing import Any

from hw.cost import CostReport

_OPS, _STEPS, _BESIDE = 1, 2, 3


def chrome_trace(report: CostReport) -> dict[str, Any]:
    """Return the timeline of a report as trace events, ready for `json.dumps`.

    Ops lie on one track, the phases in them (or their parts, without supersteps) on another, the
    tensors on their way to and from the memory beside the chip on a third; the fullest tile's
    memory is a counter. Times are in microseconds, as the format wants them.

    Parameters
    ----------
    report : CostReport

    Notes
    -----
    Source: "Trace Event Format", Google, complete (X), counter (C) and metadata (M) events.
    """
    events: list[dict[str, Any]] = [
        _name("process_name", 0, f"{report.title}, {report.phase}"),
        _name("thread_name", _OPS, "ops"),
        _name("thread_name", _STEPS, "phases"),
    ]
    clock_s = 0.0
    for op in report.ops:
        details = {
            "module": op.module,
            "phase": op.phase,
            "plan": op.plan,
            "binds": op.binds,
            "multiply_adds": op.n_mac,
            "energy_j": sum(op.energy_j.values()),
        }
        events.append(_span(op.name, _OPS, clock_s, op.time_s, details))
        events.append(
            {
                **{"name": "memory_byte", "ph": "C", "pid": 0, "ts": clock_s * 1e6},
                "args": {"byte": op.memory_byte},
            }
        )
        start_s = clock_s
        steps: list[tuple[str, str, float]] = [
            (s.label, s.part, s.cycles / report.clock_hz) for s in op.supersteps
        ]
        for label, part, length_s in steps or [(p, p, s) for p, s in op.parts_s.items()]:
            events.append(_span(label, _STEPS, start_s, length_s, {"part": part}))
            start_s += length_s
        clock_s += op.time_s
    if report.streaming is not None:
        events.append(_name("thread_name", _BESIDE, "memory beside the chip"))
        for t in report.streaming.transfers:
            details = {"byte": t.byte, "for_op": report.ops[t.i_task].name}
            label = f"{t.name} {'in' if t.comes else 'out'}"
            events.append(_span(label, _BESIDE, t.start_s, t.length_s, details))
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _name(kind: str, track: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 0, "tid": track, "args": {"name": name}}


def _span(
    name: str, track: int, start_s: float, length_s: float, args: dict[str, Any]
) -> dict[str, Any]:
    span = {"name": name, "ph": "X", "pid": 0, "tid": track}
    return {**span, "ts": start_s * 1e6, "dur": length_s * 1e6, "args": args}
