"""Checkpoints: named tensors and plain values in one safetensors file that cannot run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apps.lab.files import atomic_path
from core.errors import DataError, TesseraError

SCHEMA = "tessera.checkpoint/1"


def save_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], meta: dict[str, Any]) -> Path:
    """Write tensors and `meta` to `path`, whole or not at all.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Any shapes and dtypes; stored from the CPU, each on its own (views are not kept as views).
    meta : dict
        JSON values; floats come back bit for bit.

    Raises
    ------
    DataError
        If the file cannot be written, most often because the disk is full; what stood there stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stored = {name: _own(tensor) for name, tensor in tensors.items()}
    text = json.dumps(meta, sort_keys=True)
    header = {"schema": SCHEMA, "meta": text, "sha256": _digest(stored, text)}
    try:
        with atomic_path(path) as part:
            save_file(stored, part, metadata=header)
    except SafetensorError as error:
        hint = "free some space or choose another --out; what stood there before still does"
        raise DataError(f"cannot write {path} ({error}); {hint}") from error
    return Path(path)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote: the tensors, on the CPU, and the plain values.

    Raises
    ------
    DataError
        If the file is missing, cut short, changed since it was written, or of another schema.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    hint = "delete it and start the run again without --resume"
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise DataError(f"there is no checkpoint {path}") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"checkpoint {path} is cut short or damaged ({error}); {hint}") from error
    if header.get("schema") != SCHEMA:
        came = header.get("schema")
        raise DataError(f"checkpoint {path} has schema {came!r}, this version reads {SCHEMA!r}")
    text = header.get("meta", "")
    if _digest(tensors, text) != header.get("sha256"):
        raise DataError(f"checkpoint {path} has changed since it was written; {hint}")
    return tensors, json.loads(text)


@contextmanager
def made_from(path: str | Path) -> Iterator[None]:
    """While what a checkpoint holds is made into a model or a state: what does not fit is named.

    Raises
    ------
    DataError
        With the file's name, in place of whatever the parts raise when a value is missing, of
        another type or size, or belongs to another version.
    """
    # what torch, pydantic and plain look-ups raise; ValidationError is a ValueError
    unfit = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError)
    try:
        yield
    except (TesseraError, ValueError, *unfit) as error:
        if isinstance(error, DataError) and str(path) in str(error):
            raise
        text = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{path} does not fit this version ({text}); train or run it again"
        ) from error


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
