"""Finds, or once builds, the compiled kernels; without a compiler there are none.

The C++ sources beside this file know nothing of torch: a plain C interface, called by ctypes
without Python's global lock. One library is built for the best instruction set of the processor,
named after a hash of sources, flags and compiler, and put in place by a rename, so that
half-written or outdated libraries are never loaded. ``python -m core.kernels`` builds ahead.

``TESSERA_KERNELS`` chooses otherwise: ``torch`` does without kernels, ``avx512``, ``avx2`` or
``generic`` ask for that instruction set.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from core.errors import ConfigError

_SOURCE = Path(__file__).resolve().parent
_COMMON = (
    "-O3",
    "-std=c++17",
    "-ffp-contract=fast",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
    "-pthread",
)
#: Instruction sets, best first: the processor flags each needs, and the compiler's words for them.
LEVELS: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {
    "avx512bf16": (
        frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "avx512_vnni"}),
        (
            "-mavx512f",
            "-mavx512bw",
            "-mavx512vl",
            "-mavx512dq",
            "-mavx512bf16",
            "-mavx512vnni",
            "-mprfchw",
        ),
    ),
    "avx512": (
        frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq"}),
        ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprfchw"),
    ),
    "avx2": (frozenset({"avx2", "fma"}), ("-mavx2", "-mfma", "-mprfchw")),
    "generic": (frozenset(), ()),
}


def library(level: str | None = None, folder: Path = _SOURCE) -> ctypes.CDLL | None:
    """Return the kernels, building them on first use, or None where there is no way to.

    Parameters
    ----------
    level : str, optional
        A name out of `LEVELS`; without one, `chosen_level` decides.
    folder : Path
        Of the C++ sources: these kernels', or those of a floor above, which may include
        these kernels' headers.

    Raises
    ------
    ConfigError
        If ``TESSERA_KERNELS`` asks for something unknown or for what the processor lacks.
    """
    level = level or chosen_level()
    return None if level is None else _loaded(level, folder)


@functools.cache
def _loaded(level: str, folder: Path) -> ctypes.CDLL | None:
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if compiler is None:
        _say("no C++ compiler found (g++, c++ or $CXX)")
        return None
    try:
        return ctypes.CDLL(str(_built(compiler, LEVELS[level][1], folder)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        _say(f"{compiler} did not build them: {str(detail).strip()[-400:]}")
        return None


def chosen_level() -> str | None:
    """Return the instruction set to build for, or None for the torch-only path."""
    wanted = os.environ.get("TESSERA_KERNELS", "auto")
    if wanted == "torch":
        return None
    flags = _processor_flags()
    fitting = [name for name, (needed, _) in LEVELS.items() if needed <= flags]
    if wanted == "auto":
        return fitting[0]
    if wanted not in fitting:
        raise ConfigError(
            f"TESSERA_KERNELS must be auto, torch or one of {', '.join(fitting)} on this "
            f"processor, got {wanted!r}; unset it to choose the best"
        )
    return wanted


@functools.cache
def _processor_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    lines = (line for line in text.splitlines() if line.startswith("flags"))
    return frozenset(next(lines, "").split())


def _built(compiler: str, flags: tuple[str, ...], source: Path) -> Path:
    sources = sorted(source.glob("*.cpp"))
    digest = hashlib.sha256()
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60)
    digest.update(repr((version.stdout, _COMMON, flags, platform.machine())).encode())
    headers = sorted({*_SOURCE.glob("*.h"), *source.glob("*.h")})
    for path in [*sources, *headers]:
        digest.update(path.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}.so"
    for folder in (_SOURCE / "build", cache_folder()):
        if (folder / name).exists():
            return folder / name
    folder = _writable_folder()
    # Two processes may both build; each renames a whole file into place, and both are the same.
    with tempfile.TemporaryDirectory(dir=folder) as work:
        out = Path(work) / name
        include = f"-I{_SOURCE}"
        command = [compiler, *_COMMON, *flags, include, *map(str, sources), "-o", str(out)]
        subprocess.run(command, capture_output=True, check=True, text=True, timeout=600)
        os.replace(out, folder / name)
    return folder / name


def cache_folder() -> Path:
    """Return where this user's libraries lie if the sources' own folder cannot be written."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "tessera" / "kernels"


def _writable_folder() -> Path:
    for folder in (_SOURCE / "build", cache_folder()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise OSError(f"neither {_SOURCE / 'build'} nor {cache_folder()} can be written")


def _say(cause: str) -> None:
    print(f"tessera: {cause}; sparse layers run on plain torch, which is slower", file=sys.stderr)
