"""The command `tessera weather`; heavy imports wait inside the commands."""

from pathlib import Path
from typing import Annotated

import typer

from apps.lab.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    OutOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    SetOption,
    TrackOption,
    VariantOption,
    VerboseOption,
    handle_errors,
)

app = typer.Typer(
    name="weather",
    help="A small global weather model whose radiation is learned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

EmulatorOption = Annotated[
    Path, typer.Option("--emulator", help="Folder of a `tessera weather train` run.")
]

MachineOption = Annotated[
    list[str] | None,
    typer.Option("--machine", help="Name or TOML file; may be given again. All, if left out."),
]


@app.command()
@handle_errors
def simulate(
    out: OutOption = Path("runs/weather-simulate"),
    config: ConfigOption = None,
    set_: SetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the model freely; write CF netCDF files and a restart.

    T31L10 for ten days from the shipped state. Often set: model.resolution=T21L8, n_day=30,
    output_every_h=6, start=rest or start=FILE.nc, model.sst=FILE.nc, model.warming_k=4,
    model.physics=held-suarez. The run's config.toml lists every setting.
    """
    from apps.lab.config import load_config
    from apps.weather.forecast.simulate import SimulateConfig, run

    settings = load_config(SimulateConfig, file=config, overrides=set_ or ())
    record = run(settings, out=out, seed=seed, device=device, resume=resume)
    if json_:
        typer.echo(record.model_dump_json(by_alias=True))
    elif not quiet:
        for name, value in record.accuracy["test"].items():
            typer.echo(f"{name:28s}{value:12.3f}")


def _overrides(variant: str | None, set_: list[str] | None) -> list[str]:
    """Put the variant before the settings by hand, which win."""
    return [*([f"variant={variant}"] if variant else []), *(set_ or [])]


@app.command()
@handle_errors
def train(
    out: OutOption = Path("runs/weather-train"),
    variant: VariantOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    track: TrackOption = "none",
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Learn radiation from columns that the model makes; score it on unseen days.

    Columns are of T21L8, where all published figures were measured and a training takes some
    minutes; with --set columns.resolution=T31L10 it takes two to three times as long. A network
    reads one number of levels: forecast, score, climate and finetune run at its own resolution.
    Often set: columns.start=FILE.safetensors, columns.n_day=90, network.width=128,
    forecast=none. The run's config.toml lists every setting.
    """
    from apps.lab.config import load_config
    from apps.weather.train import TrainConfig, run, table

    settings = load_config(TrainConfig, file=config, overrides=_overrides(variant, set_))
    record = run(settings, out=out, seed=seed, device=device, resume=resume)
    if json_:
        typer.echo(record.model_dump_json(by_alias=True))
    elif not quiet:
        typer.echo(table(record))


@app.command()
@handle_errors
def cost(
    variant: VariantOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    machine: MachineOption = None,
    resolution: Annotated[
        str, typer.Option(help="Of the step that is measured here, part by part.")
    ] = "T21L8",
    json_: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Model what a radiation call costs on each machine, and measure a whole step on this one."""
    import json

    from apps.lab.config import load_config
    from apps.weather.cost import cost_table, measured_steps, step_table, untrained_cost
    from apps.weather.train import TrainConfig

    settings = load_config(TrainConfig, file=config, overrides=_overrides(variant, set_))
    entries = untrained_cost(settings.network, settings.variant, machines=machine or ())
    steps = measured_steps(settings.network, [settings.variant], resolution=resolution)
    if json_:
        typer.echo(json.dumps({"modelled": entries, "measured": steps}))
    else:
        typer.echo(f"{cost_table(entries)}\n\n{step_table(steps)}")


@app.command()
@handle_errors
def forecast(
    emulator: EmulatorOption,
    out: OutOption = Path("runs/weather-forecast"),
    config: ConfigOption = None,
    set_: SetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Forecast with the learned scheme from several dates, against the exact scheme.

    At the network's own resolution. Often set: n_date=10, lead_day=10, model.n_longwave=512.
    """
    from apps.lab.config import load_config
    from apps.weather.forecast.forecast import ForecastConfig, run

    settings = load_config(ForecastConfig, file=config, overrides=set_ or ())
    record, text = run(
        settings, emulator=emulator, out=out, seed=seed, device=device, resume=resume
    )
    if json_:
        typer.echo(record.model_dump_json(by_alias=True))
    elif not quiet:
        typer.echo(text)


@app.command()
@handle_errors
def finetune(
    emulator: EmulatorOption,
    out: OutOption = Path("runs/weather-finetune"),
    config: ConfigOption = None,
    set_: SetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Let a learned scheme go on learning inside the model, through forecasts of 6 to 24 hours.

    At the network's own resolution. Often set: window_h=6, n_window=80, n_epoch=8,
    learning_rate=1e-4, anchor=4.
    """
    from apps.lab.config import load_config
    from apps.weather.finetune import FinetuneConfig, run

    settings = load_config(FinetuneConfig, file=config, overrides=set_ or ())
    record, text = run(
        settings, emulator=emulator, out=out, seed=seed, device=device, resume=resume
    )
    if json_:
        typer.echo(record.model_dump_json(by_alias=True))
    elif not quiet:
        typer.echo(text)


@app.command()
@handle_errors
def score(
    emulator: Annotated[
        list[Path],
        typer.Option(
            "--emulator",
            help="Folder of a `tessera weather train` run; may be given again, the first counts.",
        ),
    ],
    out: OutOption = Path("runs/weather-score"),
    config: ConfigOption = None,
    set_: SetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Judge a learned scheme as forecasters do: a scorecard over dates, regions and leads.

    At the network's own resolution. Often set: n_date=40, lead_day=10, model.warming_k=4,
    model.sst=control, start=FILE.safetensors.
    """
    from apps.lab.config import load_config
    from apps.weather.verdict.score import ScoreConfig, run

    settings = load_config(ScoreConfig, file=config, overrides=set_ or ())
    record, text = run(
        settings, emulator=emulator, out=out, seed=seed, device=device, resume=resume
    )
    if json_:
        typer.echo(record.model_dump_json(by_alias=True))
    elif not quiet:
        typer.echo(text)


@app.command()
@handle_errors
def assimilate(
    out: OutOption = Path("runs/weather-assimilate"),
    config: ConfigOption = None,
    set_: SetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Follow a hidden truth through sparse observations; withhold those over one ocean basin.

    At T21L8: twenty members take twenty times a run, and the filter's radius was chosen there.
    Often set: n_member=40, n_station=60, n_withheld_day=10, model.resolution=T31L10.
    """
    from apps.lab.config import load_config
    from apps.weather.assimilation.assimilate import AssimilateConfig, run

    settings = load_config(AssimilateConfig, file=config, overrides=set_ or ())
    record, text = run(settings, out=out, seed=seed, device=device, resume=resume)
    if json_:
        typer.echo(record.model_dump_json(by_alias=True))
    elif not quiet:
        typer.echo(text)


@app.command()
@handle_errors
def climate(
    emulator: EmulatorOption,
    out: OutOption = Path("runs/weather-climate"),
    config: ConfigOption = None,
    set_: SetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Let a learned scheme run for a year, audited, beside twins of the exact one.

    At the network's own resolution. Often set: n_day=720, n_twin=4, fallback=false,
    model.warming_k=4.
    """
    from apps.lab.config import load_config
    from apps.weather.verdict.climate import ClimateConfig, run

    settings = load_config(ClimateConfig, file=config, overrides=set_ or ())
    record, text = run(
        settings, emulator=emulator, out=out, seed=seed, device=device, resume=resume
    )
    if json_:
        typer.echo(record.model_dump_json(by_alias=True))
    elif not quiet:
        typer.echo(text)
