"""Files that are written whole or not at all, and are on the disk when they are in place."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PART = re.compile(r"\.(\d+)\.part(\.\w+)?$")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` when the block succeeds.

    The folder is made if it is missing. The suffix is kept, for writers that look at it. When the
    block raises, whatever stood at `path` before still stands there, and nothing else is left.
    The file and then its name are on the disk before this returns, so that the loss of power leaves
    the old or the new one. Of processes that train together the first alone writes: in the others
    nothing takes its place.

    Examples
    --------
    >>> with atomic_path("runs/a/state.nc") as part:  # doctest: +SKIP
    ...     dataset.to_netcdf(part)
    """
    path = Path(path)
    make_folder(path.parent)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    part.touch()
    mode = part.stat().st_mode
    try:
        yield part
        part.chmod(mode)  # some writers make files that only their owner may read
        if _writes():
            _sync(part)
            os.replace(part, path)
            _sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a write names no file
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, each on the disk in the one above it."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync_folder(folder.parent)


def _sync(path: Path, flags: int = os.O_RDWR) -> None:
    """Wait until the disk has the file; a full or broken disk may say so only here."""
    opened = os.open(path, flags)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder, where the system can be asked to."""
    with suppress(OSError):  # Windows opens no folder, and some network disks sync none
        _sync(path, os.O_RDONLY)


def is_part(path: Path) -> bool:
    """Whether the name is that of a file which `atomic_path` had not finished."""
    return path.name.startswith(".") and _PART.search(path.name) is not None


def sweep(folder: Path) -> None:
    """Remove what `atomic_path` left in `folder` when its process was killed."""
    for path in folder.glob(".*.part*"):
        if found := _PART.search(path.name):
            try:
                os.kill(int(found[1]), 0)  # 0: asks whether that process lives
            except ProcessLookupError:
                path.unlink(missing_ok=True)
            except PermissionError:
                continue


def _writes() -> bool:
    """Whether this process may put files in place; asks without loading torch."""
    parallel = sys.modules.get("apps.lab.parallel")
    return parallel is None or bool(parallel.is_first())


def write_atomic(path: str | Path, data: str | bytes) -> Path:
    """Write text (UTF-8, line ends as they are) or bytes to `path`, whole or not at all."""
    with atomic_path(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(path)
