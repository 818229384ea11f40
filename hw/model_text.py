"""The training step of a model written in words, as in ``"transformer width=1024 depth=24"``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from core.errors import ConfigError
from hw import zoo
from hw.program import Program
from hw.single import parse_words
from hw.trace import trace

_LAYERS: dict[str, type] = {"width": int, "depth": int, "head": int, "length": int}
_RUN: dict[str, type] = {"batch": int, "dtype": str}
MODELS: dict[str, dict[str, type]] = {
    "mlp": {"width": int, "depth": int, **_RUN},
    "transformer": {**_LAYERS, **_RUN},
    "bert": {**_LAYERS, **_RUN},
    "resnet": {"depth": int, "group": int, **_RUN},
    "efficientnet": {"group": int, "expand": int, **_RUN},
    "conformer": {**_LAYERS, "front": int, **_RUN},
    "gps": {"depth": int, **_RUN},
}
_DEFAULT: dict[str, Any] = {
    "mlp": {"depth": 4, "batch": 32, "dtype": "fp32"},
    "transformer": {"depth": 4, "head": 8, "length": 128, "batch": 32, "dtype": "fp32"},
    "bert": {"width": 1024, "depth": 24, "head": 16, "length": 128, "batch": 8, "dtype": "fp16"},
    "resnet": {"depth": 50, "group": 1, "batch": 16, "dtype": "fp16"},
    "efficientnet": {"group": 1, "expand": 6, "batch": 4, "dtype": "fp16"},
    "conformer": {
        **{"width": 256, "depth": 12, "head": 4, "length": 1220, "front": 1},
        **{"batch": 4, "dtype": "fp16"},
    },
    "gps": {"depth": 16, "batch": 8, "dtype": "fp16"},
}
_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@lru_cache(maxsize=32)
def trace_model(text: str) -> tuple[Program, int]:
    """Return the program of one training step (Adam), and the items of its batch.

    Nothing is computed: sizes that fit no memory here can be traced.

    Parameters
    ----------
    text : str
        ``mlp``: `depth` square layers of `width`. ``transformer`` and ``bert``: `depth` encoder
        layers with `head` heads on `length` tokens, the latter with GELU and dropout. ``resnet``:
        50 or 101 layers, ResNeXt with ``group=32``. ``efficientnet``: B4 with spatial convolutions
        over `group` channels. ``conformer``: `depth` layers on `length` frames, ``front=2`` without
        the convolutions that join four frames to one. ``gps``: layers of GPS++ on `batch` packs of
        molecules. Arguments that are not given have the published value.

    Raises
    ------
    ConfigError
        Names the word that is wrong and what may stand there.
    """
    name = (text.split() or [""])[0]
    name, values = parse_words(text, MODELS, _DEFAULT.get(name, {}), what="model")
    if values["dtype"] not in _DTYPE:
        raise ConfigError(f"{name}: dtype {values['dtype']!r} is not one of {', '.join(_DTYPE)}")
    if "head" in values and values["width"] % values["head"]:
        raise ConfigError(
            f"{name}: width {values['width']} is not a multiple of head {values['head']}"
        )
    if name == "resnet" and values["depth"] not in (50, 101):
        raise ConfigError(f"resnet: depth must be 50 or 101, got {values['depth']}")
    dtype = _DTYPE[values["dtype"]]
    with FakeTensorMode(), _default_dtype(dtype):
        net, x = _build(name, values, dtype)
        optimizer = torch.optim.Adam(net.parameters(), foreach=False)

        def step() -> None:
            optimizer.zero_grad()
            out = net(x)
            (out[0] if isinstance(out, tuple) else out).square().mean().backward()
            optimizer.step()

        return trace(step), values["batch"]


def _build(
    name: str, values: dict[str, Any], dtype: torch.dtype
) -> tuple[nn.Module, Tensor | tuple[Tensor, ...]]:
    """Return a network and one batch for it."""
    batch, width, depth = (values.get(key, 1) for key in ("batch", "width", "depth"))
    match name:
        case "mlp":
            layers = [(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)]
            return nn.Sequential(*(one for pair in layers for one in pair)), torch.empty(
                batch, width
            )
        case "transformer":
            head = values["head"]
            encoders = [
                nn.TransformerEncoderLayer(width, head, 4 * width, 0.0, batch_first=True)
                for _ in range(depth)
            ]
            return nn.Sequential(*encoders), torch.empty(batch, values["length"], width)
        case "bert":
            x = torch.empty(batch, values["length"], width, requires_grad=True)
            return zoo.bert(depth, width, values["head"]), x
        case "resnet":
            return zoo.resnet(depth, values["group"]), torch.empty(batch, 3, 224, 224)
        case "efficientnet":
            net = zoo.efficientnet(values["group"], values["expand"])
            return net, torch.empty(batch, 3, 380, 380)
        case "conformer":
            front = values["front"] == 1
            net = zoo.conformer(depth, width, values["head"], front=front)
            shape = (batch, values["length"], 80 if front else width)
            return net, torch.empty(shape, requires_grad=not front)
    return zoo.gps(depth), zoo.gps_input(batch, dtype)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
