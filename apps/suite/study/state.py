"""`study.json`: which points a study has, and how far each run is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apps.lab.files import write_atomic
from apps.suite.study.spec import StudyConfig
from core.errors import DataError

SCHEMA = "tessera.study/1"
STUDY_FILE = "study.json"
# Folder of the run folders; what runs share (columns of the weather) lies in it too.
STORE = "points"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class PointState(_Part):
    """One combination of levers with one seed; `key` names its run."""

    key: str
    sweep: str
    application: str
    seed: int
    levers: dict[str, Any]


class RunState(_Part):
    """How far a run is; `problem` says why it failed."""

    status: Literal["waiting", "done", "failed"] = "waiting"
    wall_s: float = 0.0
    problem: str = ""


class Session(_Part):
    """One call of the command: how long it took, and how long its runs did.

    `share` is what the runs leave of the time of all processes: starting them, waiting at the end,
    writing down. `page_s` is what the report took.
    """

    n_job: int
    n_run: int
    run_s: float
    wall_s: float
    page_s: float = 0.0

    @property
    def share(self) -> float:
        """Overhead over the runs themselves: 0.05 is five percent."""
        return (self.n_job * self.wall_s + self.page_s) / self.run_s - 1 if self.run_s else 0.0


class StudyState(_Part):
    """A study as it stands; rewritten after each run."""

    schema_: Literal["tessera.study/1"] = Field(default="tessera.study/1", alias="schema")
    study: StudyConfig
    points: list[PointState]
    runs: dict[str, RunState]
    sessions: list[Session] = []

    def count(self, status: str) -> int:
        """How many runs have that status."""
        return sum(run.status == status for run in self.runs.values())


def write_state(folder: Path, state: StudyState) -> None:
    """Write `study.json` into the folder, whole or not at all."""
    write_atomic(folder / STUDY_FILE, state.model_dump_json(by_alias=True, indent=1) + "\n")


def read_state(folder: Path) -> StudyState:
    """Read `study.json`, of a study that is running or finished.

    Raises
    ------
    DataError
        If there is none, or it is damaged or of another version.
    """
    file = Path(folder) / STUDY_FILE
    try:
        return StudyState.model_validate_json(file.read_bytes())
    except OSError as error:
        hint = "name the folder that `tessera study` wrote to"
        raise DataError(
            f"cannot read the study {file}: {error.strerror or error}; {hint}"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        hint = "give the study file and --resume to write it anew; finished runs are kept"
        raise DataError(
            f"{file} does not follow {SCHEMA} ({at or 'whole file'}: {first['msg']}); {hint}"
        ) from error
