"""`record.json`, the one thing that reports, studies and tests read of a run.

The schema is ``tessera.record/1``: fields may be added to it, none change their meaning; a change
that would break a reader gets a new number.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from apps.lab import tracking
from apps.lab.config import Config, config_sha256
from apps.lab.files import write_atomic
from core.errors import DataError

SCHEMA = "tessera.record/1"
RECORD_FILE = "record.json"
# Packages whose version is recorded when the run has loaded them.
_PACKAGES = {
    "torch": "torch",
    "numpy": "numpy",
    "rdkit": "rdkit",
    "torch_geometric": "torch-geometric",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "xarray": "xarray",
}


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity: a metric that is not finite is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Metric = Annotated[float | None, BeforeValidator(_finite)]
Scores = dict[str, dict[str, Metric]]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class DataEntry(_Part):
    """Which data a run saw: `n_*` count items of each split."""

    name: str
    source: Literal["embedded", "mirror", "cache", "download", "file"]
    sha256: str
    n_train: int
    n_valid: int
    n_test: int
    unit: str


class Throughput(_Part):
    """Items per second of wall time on the run's own device."""

    item: str
    train_item_per_s: Metric = None
    infer_item_per_s: Metric = None


class EnergyBy(_Part):
    """Joules of one step, by where they go."""

    compute: float
    local_memory: float
    exchange: float
    off_chip: float
    static: float


class CostEntry(_Part):
    """Modelled cost of one step of one variant on one machine."""

    machine: str
    phase: Literal["train_step", "inference"]
    variant: str
    time_s: float
    energy_j: float
    peak_tile_memory_byte: int
    fits: bool
    time_interval_s: tuple[float, float]
    energy_by: EnergyBy
    energy_interval_j: tuple[float, float] | None = None
    utilisation: float


class Figure(_Part):
    """An SVG file in the run folder; `wrong_if` says what a mistake would look like in it."""

    file: str
    title: str
    caption: str
    wrong_if: str


class Record(_Part):
    """What a run did, what came out, and what it would cost; see the module's head.

    `tracking` is the folder, below the run's, of what TensorBoard or W&B has of it.
    """

    schema_: Literal["tessera.record/1"] = Field(default="tessera.record/1", alias="schema")
    application: str
    command: str
    config: dict[str, Any]
    config_sha256: str
    seed: int
    device: str
    versions: dict[str, str]
    git: str | None
    data: DataEntry
    accuracy: Scores
    members: dict[str, Scores] = {}
    baselines: dict[str, Scores] = {}
    throughput: Throughput | None = None
    cost: list[CostEntry] = []
    figures: list[Figure] = []
    history: list[dict[str, Metric]] | None = None
    tracking: str | None = None

    @property
    def variant(self) -> str:
        """Name of the model variant, empty where the application has none."""
        variant = self.config.get("variant")
        return variant.get("name", "") if isinstance(variant, dict) else str(variant or "")

    def _repr_html_(self) -> str:
        """Show accuracy beside the baselines, and costs, in a notebook."""
        from apps.lab.report.card import record_html

        return record_html(self)


def new_record(
    *,
    application: str,
    command: str,
    config: Config,
    seed: int,
    device: Any,
    data: DataEntry | Mapping[str, Any],
    accuracy: Mapping[str, Mapping[str, float]],
    members: Mapping[str, Any] | None = None,
    baselines: Mapping[str, Any] | None = None,
    throughput: Throughput | Mapping[str, Any] | None = None,
    cost: Sequence[CostEntry | Mapping[str, Any]] = (),
    figures: Sequence[Figure | Mapping[str, str]] = (),
    history: Sequence[Mapping[str, float]] | None = None,
) -> Record:
    """Make a record; the configuration's hash, the versions and the commit are filled in.

    Raises
    ------
    DataError
        If a part does not follow the schema; the sentence names the field.
    """
    return _validated(
        {
            "application": application,
            "command": command,
            "config": config.model_dump(mode="json"),
            "config_sha256": config_sha256(config),
            "seed": seed,
            "device": str(device),
            "versions": versions(),
            "git": git_commit(),
            "data": data,
            "accuracy": accuracy,
            "members": members or {},
            "baselines": baselines or {},
            "throughput": throughput,
            "cost": list(cost),
            "figures": list(figures),
            "history": None if history is None else list(history),
            "tracking": tracking.link(),
        },
        "new record",
    )


def write_record(run_dir: str | Path, record: Record) -> Path:
    """Write `record.json` into the run folder, whole or not at all, and give its path."""
    import json

    text = json.dumps(record_content(record), indent=1, ensure_ascii=False)
    return write_atomic(Path(run_dir) / RECORD_FILE, text + "\n")


def record_content(record: Record) -> dict[str, Any]:
    """Return what a record file holds.

    Its last entry, `sha256`, is the hash of all others, so that a damaged record is not believed.
    """
    import json

    content = json.loads(record.model_dump_json(by_alias=True))
    return content | {"sha256": _digest(content)}


def _digest(content: dict[str, Any]) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_record(path: str | Path) -> Record:
    """Read the record of a run folder, or a record file.

    Raises
    ------
    DataError
        If there is none, it is cut short, it has changed since it was written, or it follows
        another schema. A record without a hash is taken as it is.
    """
    import json

    path = Path(path)
    file = path / RECORD_FILE if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "is the run finished, and is this its folder?"
        raise DataError(f"cannot read the record {file}: {reason}; {hint}") from error
    except (ValueError, RecursionError) as error:
        hint = "the file is cut short or damaged; run it again"
        raise DataError(f"{file} is not valid JSON ({error}); {hint}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        hint = "read it with the version that wrote it"
        raise DataError(f"{file} has schema {schema!r}, this version reads {SCHEMA!r}; {hint}")
    digest = content.pop("sha256", None)
    if digest not in (None, _digest(content)):
        hint = "run it again, or take out its last line, sha256, if you changed it on purpose"
        raise DataError(f"the record {file} has changed since it was written; {hint}")
    return _validated(content, str(file))


def _validated(content: dict[str, Any], where: str) -> Record:
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        loc = ".".join(map(str, first["loc"]))
        came = repr(first["input"])
        came = came if len(came) < 80 else came[:77] + "..."
        raise DataError(f"{where}: {loc}: {first['msg']}, got {came}") from error


def versions() -> dict[str, str]:
    """Give the versions of Python, of this suite, and of each known package that is loaded."""
    found = {"python": platform.python_version(), "tessera": _version("tessera-ml")}
    for module, distribution in _PACKAGES.items():
        if module in sys.modules:
            found[module] = _version(distribution)
    return found


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@functools.cache
def git_commit() -> str | None:
    """Give the commit of this checkout, with ``-dirty`` after changes; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
