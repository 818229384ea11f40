"""The training step of a model written in words, as in ``"transformer width=1024 depth=24"``."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from core.errors import ConfigError
from hw.program import Program
from hw.single import parse_words
from hw.trace import trace

MODELS: dict[str, dict[str, type]] = {
    "mlp": {"width": int, "depth": int, "batch": int, "dtype": str},
    "transformer": {
        **{"width": int, "depth": int, "head": int, "length": int, "batch": int, "dtype": str}
    },
}
_DEFAULT: dict[str, Any] = {"depth": 4, "head": 8, "length": 128, "batch": 32, "dtype": "fp32"}
_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def trace_model(text: str) -> tuple[Program, int]:
    """Return the program of one training step (Adam), and the items of its batch.

    Nothing is computed: sizes that fit no memory here can be traced.

    Parameters
    ----------
    text : str
        ``mlp``: `depth` square layers of `width`. ``transformer``: `depth` encoder layers with
        `head` heads on `length` tokens.

    Raises
    ------
    ConfigError
        Names the word that is wrong and what may stand there.
    """
    name, values = parse_words(text, MODELS, _DEFAULT, what="model")
    if values["dtype"] not in _DTYPE:
        raise ConfigError(f"{name}: dtype {values['dtype']!r} is not one of {', '.join(_DTYPE)}")
    dtype, width, depth = _DTYPE[values["dtype"]], values["width"], values["depth"]
    with FakeTensorMode():
        net: torch.nn.Module
        if name == "mlp":
            layers: list[torch.nn.Module] = []
            for _ in range(depth):
                layers += [torch.nn.Linear(width, width, dtype=dtype), torch.nn.ReLU()]
            net = torch.nn.Sequential(*layers)
            x = torch.empty(values["batch"], width, dtype=dtype)
        else:
            if width % values["head"]:
                raise ConfigError(
                    f"transformer: width {width} is not a multiple of head {values['head']}"
                )
            net = torch.nn.Sequential(
                *(
                    torch.nn.TransformerEncoderLayer(
                        width, values["head"], 4 * width, 0.0, batch_first=True, dtype=dtype
                    )
                    for _ in range(depth)
                )
            )
            x = torch.empty(values["batch"], values["length"], width, dtype=dtype)
        optimizer = torch.optim.Adam(net.parameters(), foreach=False)

        def step() -> None:
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()

        return trace(step), values["batch"]
