"""The command `tessera chemistry`; heavy imports wait inside the commands."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from apps.lab.options import (
    ConfigOption,
    DeviceOption,
    JobsOption,
    JsonOption,
    OutOption,
    QuietOption,
    ResumeOption,
    SchedulerOption,
    SeedOption,
    SetOption,
    TrackOption,
    VariantOption,
    VerboseOption,
    handle_errors,
)

app = typer.Typer(
    name="chemistry",
    help="Molecular binding prediction with a graph network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="pocket (embedded), bace, moleculeace/NAME, or a file (CSV, SMI, SDF). Several: "
        "one task each.",
        show_default=False,
    ),
]
SmilesOption = Annotated[
    str | None, typer.Option("--smiles", help="Column of the SMILES.", show_default=False)
]
TargetOption = Annotated[
    list[str] | None, typer.Option("--target", help="Column to predict. May be given again.")
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split-column", help="Column with train, valid and test.", show_default=False),
]
UnitOption = Annotated[
    str | None, typer.Option("--unit", help="Unit of the target: nM, uM, ... become pK.")
]
RelationOption = Annotated[
    str | None, typer.Option("--relation-column", help="Column with =, < or >.")
]
SeedsOption = Annotated[
    int | None,
    typer.Option("--seeds", help="Run this many seeds, each in its folder of --out.", min=1),
]


@app.command()
@handle_errors
def train(
    out: OutOption = Path("runs/chemistry"),
    data: DataOption = None,
    smiles: SmilesOption = None,
    target: TargetOption = None,
    split_column: SplitOption = None,
    unit: UnitOption = None,
    relation_column: RelationOption = None,
    variant: VariantOption = None,
    seed: SeedOption = 0,
    seeds: SeedsOption = None,
    config: ConfigOption = None,
    jobs: JobsOption = 1,
    scheduler: SchedulerOption = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    track: TrackOption = "none",
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train on a table of molecules, print accuracy beside the baselines, and cost."""
    from apps.chemistry import train as room
    from apps.chemistry.config import TrainConfig
    from apps.chemistry.summary import records_json, summary
    from apps.lab.config import load_config

    given = {
        "data.source": data[0] if data else None,
        "data.more": data[1:] if data and data[1:] else None,
        "data.smiles": smiles,
        "data.target": list(target) if target else None,
        "data.split_column": split_column,
        "data.unit": unit,
        "data.relation_column": relation_column,
        "variant": variant,
    }
    settings = load_config(TrainConfig, file=config, overrides=[*_overrides(given), *(set_ or [])])
    if seeds is None:
        records = [room.run(settings, out=out, seed=seed, device=device, resume=resume)]
    else:
        records = room.run_seeds(
            settings,
            range(seed, seed + seeds),
            out=out,
            device=device,
            resume=resume,
            n_job=jobs,
            scheduler=scheduler,
        )
    typer.echo(records_json(records) if json_ else summary(records))


@app.command()
@handle_errors
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or its model file.")],
    source: Annotated[Path, typer.Argument(help="CSV, SMI or SDF, plain or .gz.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file to write.")],
    smiles: SmilesOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first row that cannot be read.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", min=1, show_default=False, help="Processes; by default one per processor."
        ),
    ] = None,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Predict every row of a file: same rows, same order, with a status."""
    from apps.chemistry import answers as room
    from apps.chemistry.predictor import Predictor
    from apps.lab.launch import resolve_device

    predictor = Predictor.load(run, device=resolve_device(device))
    column = smiles or predictor.config.data.smiles
    counts = room.predict_file(predictor, source, out, smiles=column, strict=strict, n_job=jobs)
    if not quiet:
        n_row = counts["ok"] + counts["fixed"]
        typer.echo(
            f"{out}: {n_row:,} rows predicted ({counts['fixed']:,} fixed), "
            f"{counts['invalid']:,} invalid"
        )


@app.command()
@handle_errors
def explain(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or its model file.")],
    smiles: Annotated[list[str], typer.Argument(help="Molecules.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the drawings and pairs.")
    ] = Path(),
    kind: Annotated[str, typer.Option("--format", help="svg or png.")] = "svg",
    target: Annotated[
        str | None, typer.Option("--target", help="Which of several.", show_default=False)
    ] = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Draw what each atom adds to a prediction, and list matched pairs among training molecules.

    The shares sum to the prediction minus the baseline: what the model says of the scaffold.
    """
    from apps.chemistry import answers as room
    from apps.chemistry.predictor import Predictor

    predictor = Predictor.load(run)
    task = predictor.task(target)
    for i, text in enumerate(smiles, start=1):
        answer = room.explain(predictor, text, task=task)
        path = room.draw(answer, out / f"explain-{i}.{kind}")
        pairs = room.matched_pairs(predictor, answer, task=task)
        room.write_pairs(pairs, out / f"pairs-{i}.csv")
        if not quiet:
            typer.echo(
                f"{text}: {answer.prediction:.2f} = {answer.baseline:.2f} (scaffold) "
                f"{answer.share.sum():+.2f} ({answer.n_cut} branch(es) asked): {path}; "
                f"{len(pairs)} matched pair(s): {out / f'pairs-{i}.csv'}"
            )
            if answer.is_guess:
                typer.echo(
                    "  no branch can be cut without leaving what the training molecules show: "
                    "the shares are a guess"
                )


@app.command()
@handle_errors
def compress(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run of a dense variant, or its model file.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the smaller model.")],
    epochs: Annotated[
        int, typer.Option("--epochs", min=0, help="Epochs to prune and recover; 0 only rounds.")
    ] = 60,
    density: Annotated[
        float, typer.Option("--density", min=0.01, max=1.0, help="Share of blocks that stay.")
    ] = 0.1,
    block: Annotated[int, typer.Option("--block", min=1, help="Side of a block.")] = 16,
    weights: Annotated[str, typer.Option("--weights", help="Number format at rest.")] = "int8",
    process: Annotated[
        bool,
        typer.Option(
            "--process", help="Processes on the networks' counts answer, even where none did."
        ),
    ] = False,
    seed: SeedOption = 0,
    results: Annotated[
        Path | None, typer.Option("--results", help="JSON file: errors, no molecules.")
    ] = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Prune a trained network to few blocks, round its weights, and say what that costs."""
    import json

    from apps.chemistry import compress as room
    from apps.lab.files import write_atomic

    variant = room.Variant(density=density, block=block, weight_format=weights)
    answer = room.compress_run(
        run, out, variant=variant, n_epoch=epochs, seed=seed, process=process
    )
    if results is not None:
        write_atomic(results, json.dumps(answer.document(), indent=1) + "\n")
    typer.echo(str(answer))


@app.command()
@handle_errors
def cost(
    run: Annotated[Path, typer.Option("--run", help="Folder of a finished run.")],
    machine: Annotated[
        list[str] | None, typer.Option("--machine", help="Name or file. May be given again.")
    ] = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Cost one training step and one inference step of a run's model on every machine."""
    import json

    from apps.chemistry.summary import cost_table
    from apps.chemistry.train import cost_run

    entries = cost_run(run, machines=machine or ())
    if json_:
        typer.echo(json.dumps([entry.model_dump(mode="json") for entry in entries], indent=1))
    else:
        typer.echo(cost_table(entries))


@app.command()
@handle_errors
def benchmark(
    suite: Annotated[
        str, typer.Option("--suite", help="moleculeace, bace, davis, kiba or pocket.")
    ],
    out: OutOption = Path("runs/chemistry-benchmark"),
    targets: Annotated[
        list[str] | None, typer.Option("--targets", help="Sets of the suite; all without it.")
    ] = None,
    seed: SeedOption = 0,
    seeds: Annotated[int, typer.Option("--seeds", help="Number of seeds.", min=1)] = 1,
    variant: VariantOption = None,
    joint: Annotated[
        bool | None,
        typer.Option(
            "--joint/--no-joint",
            help="One network for all targets (the default), or one each.",
            show_default=False,
        ),
    ] = None,
    jobs: JobsOption = 1,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="JSON file for the table: errors, no molecules."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="davis and kiba: warm, cold-drug, cold-target or cold-both.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compare graph, kernels and their hybrid with baselines and published errors, per target."""
    import json

    from apps.chemistry import affinity
    from apps.chemistry.summary import records_json
    from apps.lab.config import load_config
    from apps.lab.files import write_atomic

    if suite in affinity.SUITES:
        asked = _overrides({"suite": suite, "split": split})
        pairs = load_config(affinity.AffinityConfig, file=config, overrides=[*asked, *(set_ or [])])
        records = affinity.run_affinity(pairs, out=out, seeds=range(seed, seed + seeds))
        if results is not None:
            text = json.dumps(affinity.affinity_document(records), indent=1)
            write_atomic(results, text + "\n")
        typer.echo(records_json(records) if json_ else affinity.affinity_summary(records))
        return
    from apps.chemistry import benchmark as room

    given = _overrides({"variant": variant, "joint": None if joint is None else str(joint).lower()})
    settings = load_config(room.BenchmarkConfig, file=config, overrides=[*given, *(set_ or [])])
    names = [name for text in targets or [] for name in text.split(",")]
    sources = room.suite_sources(suite, names)
    records = room.run_benchmark(
        settings, sources, out=out, seeds=range(seed, seed + seeds), n_job=jobs
    )
    document = room.benchmark_document(records, out)
    if results is not None:
        write_atomic(results, json.dumps(document, indent=1) + "\n")
    typer.echo(records_json(records) if json_ else room.benchmark_summary(document))


def _overrides(given: Mapping[str, object]) -> list[str]:
    """Return the options that were given as settings, spelled as `--set` takes them."""
    import json

    return [
        f"{key}={json.dumps(value) if isinstance(value, list) else value}"
        for key, value in given.items()
        if value is not None
    ]
