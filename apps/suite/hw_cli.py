"""``tessera hw``: machines, the cost of one operation, predictions beside measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.lab.options import JsonOption, VerboseOption, handle_errors

if TYPE_CHECKING:
    from hw import CostReport

app = typer.Typer(no_args_is_help=True, help="The machines and what work costs on them.")

MachineOption = Annotated[
    list[str] | None,
    typer.Option("--machine", "-m", help="Name or TOML file; may be given again. Default: all."),
]


@app.command()
@handle_errors
def machines(json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """List the machines, or with -v every number with its source."""
    from json import dumps

    from hw import load_machine, machine_names

    known = [load_machine(name) for name in machine_names()]
    if json:
        rows = [
            {
                "name": machine.name,
                "title": machine.title,
                "kind": machine.kind,
                "clock_hz": machine.clock_hz,
                "n_unit": machine.n_unit,
                "memory_byte": machine.device_memory_byte,
                "peak_flop_per_s": {f: 2 * machine.mac_per_s(f) for f in machine.mac_per_cycle},
                "static_w": machine.static_w,
                "static_w_range": machine.ranges["static_w"],
            }
            for machine in known
        ]
        typer.echo(dumps(rows, indent=2))
        return
    for machine in known:
        peak = ", ".join(
            f"{f} {2 * machine.mac_per_s(f) / 1e12:.4g}" for f in machine.mac_per_cycle
        )
        typer.echo(
            f"{machine.name:<12}{machine.title}: {machine.n_unit} units at "
            f"{machine.clock_hz / 1e9:.4g} GHz, {machine.device_memory_byte / 1e9:.3g} GB, "
            f"peak TFLOP/s {peak}"
        )
        if verbose:
            for field, source in machine.sources.items():
                name, _, format = field.partition(".")
                value = getattr(machine, name)[format] if format else getattr(machine, name)
                low, high = machine.ranges.get(field, (value, value))
                span = f"{low:g} to {high:g}" if high > low else ""
                typer.echo(f"    {field:<34}{value:<14.6g}{span:<16}{source.mark:<10}{source.text}")


@app.command()
@handle_errors
def cost(
    op: Annotated[
        str | None,
        typer.Option(
            "--op",
            help='As "matmul m=1024 k=1024 n=64 dtype=fp16"; a wrong word is told what may stand.',
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help='A training step, as "transformer width=512 depth=4".'),
    ] = None,
    machine: MachineOption = None,
    explain: Annotated[
        bool,
        typer.Option(help="Plan, next best, each term, what binds; break-even of a sparse op."),
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page of figures there.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write the timeline of a --model as a Chrome trace there.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="What plans are chosen by: time, energy or memory.")
    ] = "time",
    spill: Annotated[
        bool,
        typer.Option(
            help="Let a --model that does not fit on the chip use the memory beside it (its "
            "board's or its host's); transfers overlap with work as far as a buffer holds them."
        ),
    ] = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Give time, energy and plan of one operation, or of a model's training step."""
    from core.errors import ConfigError

    if (op is None) == (model is None):
        raise ConfigError("cost: give either --op or --model")
    if op is not None:
        if trace is not None:
            raise ConfigError("cost: --trace needs a --model")
        if spill:
            raise ConfigError("cost: --spill needs a --model")
        _cost_op(op, machine, objective, explain=explain, html=html, json=json, verbose=verbose)
    elif model is not None:
        _cost_model(
            *(model, machine, objective),
            explain=explain, html=html, trace=trace, spill=spill, json=json,
        )  # fmt: skip


def _cost_op(
    op: str,
    machines: list[str] | None,
    objective: str,
    *,
    explain: bool,
    html: Path | None,
    json: bool,
    verbose: bool,
) -> None:
    from dataclasses import asdict
    from html import escape
    from json import dumps
    from math import ceil

    from apps.lab.files import write_atomic
    from hw import load_machine, machine_names
    from hw.curves import density_figure
    from hw.energy import energy_interval
    from hw.explain import density_curve, density_table
    from hw.explain import explain as explain_op
    from hw.interval import error_of, interval
    from hw.item import joined
    from hw.machine import planned_for
    from hw.occupancy import alone_byte, per_tile
    from hw.report import page
    from hw.single import parse_op
    from hw.targets import cost_item, expanded
    from hw.units import si
    from hw.work import SparseContraction

    parsed = parse_op(op)
    rows, fragments = [], []
    for name in machines or machine_names():
        loaded = planned_for(load_machine(name), objective)
        items = expanded((parsed,), loaded)
        costs = [cost_item(item, loaded) for item in items]
        answer = joined(costs)
        static_j = loaded.static_w * answer.time_s
        row = {"machine": loaded.name, **asdict(answer)}
        row["energy_j"] = {**answer.energy_j, "static": static_j}
        low_j, high_j = row["energy_interval_j"] = energy_interval(row["energy_j"], loaded)
        expected = [error_of(item, loaded) for item in items]
        shares = [cost.time_s / answer.time_s for cost in costs]
        error = sum(share * e for share, (e, _) in zip(shares, expected, strict=True))
        low_s, high_s = row["time_interval_s"] = interval(answer.time_s, error)
        outside = "; ".join(dict.fromkeys(why for _, why in expected if why))
        row["outside_calibration"] = outside
        n_tile, limit_byte, code_byte = per_tile(loaded)
        peak_byte = max(
            alone_byte(item, [cost], loaded) for item, cost in zip(items, costs, strict=True)
        )
        row |= {
            "peak_memory_byte": peak_byte,
            "memory_byte": limit_byte,
            "fits": answer.fits and peak_byte <= limit_byte,
        }
        rows.append(row)
        text, figure = "", ""
        if explain or html is not None:
            text = "\n".join(explain_op(item, loaded) for item in items)
        if text and isinstance(items[0], SparseContraction):
            curve = density_curve(items[0], loaded)
            text += f"\n{density_table(curve)}"
            figure = density_figure(curve, f"{loaded.title}: time by density")
        fragments.append(f"<pre>{escape(text)}</pre>{figure}")
        if json:
            continue
        short = ""
        if peak_byte > limit_byte:
            n_chip = ceil((peak_byte - code_byte) / (limit_byte - code_byte))
            short = (
                f"does not fit: operands, result and temporaries take {si(peak_byte, 'B')}"
                f"{' per tile' if n_tile > 1 else ''}, the machine has {si(limit_byte, 'B')}; "
                f"at least {n_chip:,} chips would hold it"
            )
        if explain:
            typer.echo(text + (f"\n  {short}" if short else ""))
            continue
        largest = sorted(answer.parts_s.items(), key=lambda part: -part[1])
        parts = ", ".join(f"{part} {si(value, 's')}" for part, value in largest)
        rate = 2 * answer.n_mac / answer.time_s / 1e12
        typer.echo(
            f"{loaded.name:<12}{si(answer.time_s, 's'):>10} ({si(low_s, 's')} to "
            f"{si(high_s, 's')})  {rate:8.4g} TFLOP/s  "
            f"{si(sum(answer.energy_j.values()) + static_j, 'J'):>10} ({si(low_j, 'J')} to "
            f"{si(high_j, 'J')})  {answer.plan}\n"
            f"{'':12}{parts}; binds: {answer.binds}"
            + (f"\n{'':12}{short}" if short else "")
            + (f"\n{'':12}outside the calibrated range: {outside}" if outside else "")
        )
        if verbose:
            for step in answer.supersteps:
                typer.echo(f"{'':12}{step.kind:<9}{step.cycles:12.0f} cycles  {step.label}")
    if html is not None:
        write_atomic(html, page(fragments, op))
    if json:
        typer.echo(dumps(rows, indent=2))


def _cost_model(
    model: str,
    machines: list[str] | None,
    objective: str,
    *,
    explain: bool,
    html: Path | None,
    trace: Path | None,
    spill: bool,
    json: bool,
) -> None:
    from json import dumps

    from apps.lab.files import write_atomic
    from core.errors import ConfigError, MemoryExceededError
    from hw import cost_program, load_machine, machine_names
    from hw.chrome import chrome_trace
    from hw.explain import explain_program
    from hw.machine import planned_for
    from hw.model_text import trace_model
    from hw.report import memory_sentence, page, side_by_side

    names = machines or machine_names()
    if trace is not None and len(names) > 1:
        raise ConfigError(f"cost: --trace holds one machine, got {len(names)}; name it by -m")
    program, _ = trace_model(model)
    planned = [planned_for(load_machine(name), objective) for name in names]
    reports = [
        cost_program(program, machine, phase="train_step", spill=spill) for machine in planned
    ]
    short = [report for report in reports if spill and not report.fits]
    reports = [report for report in reports if report not in short]
    if reports and html is not None:
        fragments = [side_by_side(reports), *(report._repr_html_() for report in reports)]
        write_atomic(html, page(fragments, model))
    if reports and trace is not None:
        write_atomic(trace, dumps(chrome_trace(reports[0])))
    if json:
        typer.echo(dumps([_entry(report, model) for report in reports], indent=2))
    elif reports:
        typer.echo("\n\n".join(str(report) for report in reports))
        if explain:
            typer.echo("\n\n".join(explain_program(report) for report in reports))
    if short:
        raise MemoryExceededError("; ".join(memory_sentence(report) for report in short))


def _entry(report: CostReport, model: str) -> dict[str, Any]:
    """Return a report's entry, with how it streams if it does."""
    from dataclasses import asdict

    if report.streaming is None:
        return report.entry(model)
    beside = {k: v for k, v in asdict(report.streaming).items() if k != "transfers"}
    return report.entry(model) | {"streaming": beside}


@app.command()
@handle_errors
def scale(
    model: Annotated[
        str,
        typer.Option("--model", help='As "transformer width=1024 depth=24 batch=8 dtype=fp16".'),
    ] = "transformer width=1024 depth=24 head=16 length=128 batch=8 dtype=fp16",
    machine: Annotated[str, typer.Option("--machine", "-m", help="Name or TOML file.")] = "ipu_bow",
    chips: Annotated[str, typer.Option(help="Numbers of chips, separated by commas.")] = (
        "1,2,4,8,16,32,64,128,256,512,1024"
    ),
    tensor: Annotated[int, typer.Option(help="Chips that share each layer.")] = 1,
    pipeline: Annotated[int, typer.Option(help="Stages of layers.")] = 1,
    micro: Annotated[int, typer.Option(help="Micro-batches of a pipeline.")] = 8,
    algorithm: Annotated[str, typer.Option(help="All-reduce: ring, tree or best.")] = "best",
    overlap: Annotated[
        bool, typer.Option(help="Reduce gradients behind the backward pass.")
    ] = True,
    steps: Annotated[
        str | None,
        typer.Option(
            help="Measured steps to the target by batch over all replicas, as '64:9000,512:1600' "
            "(`tessera study` measures them): gives the time to train."
        ),
    ] = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train a model on many chips: its batch on each replica, gradients summed over all."""
    from dataclasses import asdict
    from json import dumps

    from core.errors import ConfigError
    from hw import cost_program, load_machine
    from hw.model_text import trace_model
    from hw.scale import Layout, parse_steps, step_work, time_to_train
    from hw.scale import scale as scale_step
    from hw.units import si

    loaded = load_machine(machine)
    steps_at = parse_steps(steps) if steps is not None else {}
    program, n_item = trace_model(model)
    report = cost_program(program, loaded, phase="train_step")
    work = step_work(report, program, n_item)
    rows = []
    if tensor < 1 or pipeline < 1:
        raise ConfigError(
            f"scale: tensor and pipeline must be at least 1, got {tensor} and {pipeline}"
        )
    for text in chips.split(","):
        n_chip = int(text) if text.strip().isdigit() else 0
        if n_chip < 1 or (n_chip > 1 and n_chip % (tensor * pipeline)):
            raise ConfigError(
                f"scale: chips must be 1 or multiples of tensor x pipeline = "
                f"{tensor * pipeline}, got {text!r}"
            )
        layout = Layout()
        if n_chip > 1:
            layout = Layout(n_chip // (tensor * pipeline), pipeline, tensor, micro)
        rows.append(scale_step(work, loaded, layout, overlap=overlap, algorithm=algorithm))  # type: ignore[arg-type]
    whole_s = [
        time_to_train(row.time_s, batch, steps_at)
        if steps_at and min(steps_at) <= (batch := n_item * row.layout.data) <= max(steps_at)
        else None
        for row in rows
    ]
    if json:
        entries = [
            asdict(row) | {"n_chip": row.layout.n_chip, "time_to_train_s": seconds}
            for row, seconds in zip(rows, whole_s, strict=True)
        ]
        typer.echo(dumps(entries, indent=2))
        return
    typer.echo(f"{loaded.title}: {model}\nbatch of {n_item} on each replica, one chip alone:")
    typer.echo(f"  {si(work.time_s, 's')}, gradients {si(work.gradient_byte, 'B')}")
    if not report.fits:
        typer.echo("  does not fit on one chip: times are those of its share, were there room")
    typer.echo(f"{'chips':>6}{'step':>11}{'items/s':>12}{'efficiency':>12}{'sent':>12}  parts")
    for row, seconds in zip(rows, whole_s, strict=True):
        parts = ", ".join(f"{name} {si(s, 's')}" for name, s in row.parts_s.items() if s)
        typer.echo(
            f"{row.layout.n_chip:>6}{si(row.time_s, 's'):>11}{row.item_per_s:>12,.0f}"
            f"{row.efficiency:>12.1%}{row.sent_byte / 1e9:>9.3g} GB  {parts}"
        )
        if steps_at:
            batch = n_item * row.layout.data
            found = "no steps measured there" if seconds is None else f"{si(seconds, 's')} to train"
            typer.echo(f"{'':>6}batch {batch:,}: {found}")


@app.command()
@handle_errors
def validate(
    table: Annotated[Path, typer.Option("--table", help="CSV of published measurements.")],
    machine: Annotated[
        list[str] | None,
        typer.Option(
            "--machine", "-m", help="As 'MI210=mi210.toml': the machine of cells that begin so."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the result there.")] = None,
    verbose: VerboseOption = False,
) -> None:
    """Predict published measurements and give the error by group."""
    from json import dumps

    from apps.lab.files import write_atomic
    from core.errors import ConfigError
    from hw.validate import validate as run

    machines = {}
    for text in machine or ():
        start, _, name = text.rpartition("=")
        if not start or not name:
            raise ConfigError(f"validate: --machine must be written CELL=FILE.toml, got {text!r}")
        machines[start] = name
    result = run(table, machines=machines)
    if json is not None:
        write_atomic(json, dumps(result.to_json(), indent=2))
    typer.echo(str(result))
