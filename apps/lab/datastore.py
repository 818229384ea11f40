"""Real data sets by name: local mirror, cache or pinned download, the hash always checked."""

from __future__ import annotations

import hashlib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from apps.lab.config import near_miss
from core.errors import DataError

REGISTRY = Path(__file__).resolve().parents[2] / "data" / "registry.toml"
VARIABLE = "TESSERA_DATA_DIR"


@dataclass(frozen=True)
class DataFile:
    """A file whose bytes are what the registry says.

    Attributes
    ----------
    path : Path
        Where it lies; do not write to it.
    source : "mirror", "cache" or "download"
        Where it came from this time.
    unit, licence : str
        As the registry states them.
    """

    path: Path
    name: str
    source: Literal["mirror", "cache", "download"]
    sha256: str
    unit: str
    licence: str


@dataclass(frozen=True)
class Listing:
    """One file of the registry, fetched or not; `here` says where it is at hand, if it is."""

    name: str
    unit: str
    licence: str
    note: str
    byte: int
    here: Literal["mirror", "cache"] | None


@dataclass(frozen=True)
class _Entry:
    name: str
    address: str
    place: str
    sha256: str
    byte: int
    unit: str
    licence: str
    note: str
    embedded: str


def fetch(name: str) -> DataFile:
    """Give one file, from the mirror in `$TESSERA_DATA_DIR`, the cache, or a download into it.

    Parameters
    ----------
    name : str
        ``set/file``, such as ``moleculeace/CHEMBL234_Ki``; the set alone where it has one file.

    Raises
    ------
    DataError
        For an unknown name (the near miss is named), a mirror that is not there, bytes with
        another hash (both are shown), or a file that is nowhere and cannot be downloaded (the
        variable and the embedded set are named).
    """
    entries = _find(name)
    if len(entries) > 1:
        files = ", ".join(entry.name for entry in entries)
        raise DataError(f"data set {name!r} has {len(entries)} files, name one: {files}")
    return _fetch(entries[0])


def fetch_all(name: str) -> list[DataFile]:
    """Give every file of a data set, as `fetch` does."""
    return [_fetch(entry) for entry in _find(name)]


def list_datasets() -> list[Listing]:
    """Give every file of the registry, without touching the network or reading the data."""
    mirror = _mirror()
    listed = []
    for e in _registry().values():
        here: Literal["mirror", "cache"] | None = None
        if mirror is not None and (mirror / e.place).exists():
            here = "mirror"
        elif (cache_dir() / e.place).exists():
            here = "cache"
        listed.append(Listing(e.name, e.unit, e.licence, e.note, e.byte, here))
    return listed


def cache_dir() -> Path:
    """Give the folder that downloads are kept in."""
    import pooch

    return Path(pooch.os_cache("tessera"))


def _registry() -> dict[str, _Entry]:
    entries = {}
    for dataset, table in tomllib.loads(REGISTRY.read_text(encoding="utf-8")).items():
        files: dict[str, dict[str, Any]] = table["file"]
        for key, file in files.items():
            name = dataset if len(files) == 1 else f"{dataset}/{key}"
            entries[name] = _Entry(
                name=name,
                address=table["address"] + file["path"],
                place=f"{table['folder']}/{file['path']}",
                sha256=file["sha256"],
                byte=file["byte"],
                unit=table["unit"],
                licence=table["licence"],
                note=table["note"],
                embedded=table["embedded"],
            )
    return entries


def _find(name: str) -> list[_Entry]:
    entries = _registry()
    found = [entry for key, entry in entries.items() if key == name or key.startswith(f"{name}/")]
    if not found:
        sets = sorted({key.partition("/")[0] for key in entries})
        known = list(entries) if "/" in name else sets
        raise DataError(f"no data set is named {name!r}{near_miss(name, known)}")
    return found


def _mirror() -> Path | None:
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    if not Path(text).is_dir():
        raise DataError(f"${VARIABLE} is {text!r}, which is not a folder; correct or unset it")
    return Path(text)


def _fetch(entry: _Entry) -> DataFile:
    mirror = _mirror()
    cached = cache_dir() / entry.place
    source: Literal["mirror", "cache", "download"]
    if mirror is not None and (mirror / entry.place).exists():
        path, source = mirror / entry.place, "mirror"
    elif cached.exists():
        path, source = cached, "cache"
    else:
        path, source = _download(entry, cached), "download"
    came = _sha256(path)
    if came != entry.sha256:
        hint = (
            f"get it again from {entry.address}" if source == "mirror" else "delete it, try again"
        )
        raise DataError(
            f"{path} is not the {entry.name} of the registry: "
            f"its sha256 is {came}, expected {entry.sha256}; {hint}"
        )
    return DataFile(path, entry.name, source, came, entry.unit, entry.licence)


def _download(entry: _Entry, cached: Path) -> Path:
    import logging

    import pooch
    from requests.exceptions import RequestException

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        got = pooch.retrieve(
            entry.address,
            known_hash=f"sha256:{entry.sha256}",
            fname=cached.name,
            path=cached.parent,
        )
    except (OSError, RequestException, ValueError) as error:
        raise DataError(
            f"data set {entry.name!r} is not here and cannot be downloaded "
            f"({type(error).__name__}: {error}); put {entry.place} into the folder that "
            f"${VARIABLE} names, or use the embedded set {entry.embedded!r}, which needs no file"
        ) from error
    return Path(got)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
