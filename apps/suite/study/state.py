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


class StudyState(_Part):
    """A study as it stands; rewritten after each run."""

    schema_: Literal["tessera.study/1"] = Field(default="tessera.study/1", alias="schema")
    study: StudyConfig
    points: list[PointState]
    runs: dict[str, RunState]

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
