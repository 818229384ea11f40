"""One operation written in words, as in ``"spmm m=4096 k=4096 n=1024 block=16 density=0.0625"``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from core.errors import ConfigError
from hw.formats import FORMAT_BYTE
from hw.work import (
    Attention,
    Contraction,
    Fourier,
    Gather,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
    SparseContraction,
    Work,
)

_MATRIX = {"m": int, "k": int, "n": int, "dtype": str}
_ROWS = {"m": int, "n": int, "dtype": str}
_BLOCKS = {**_MATRIX, "block": int, "density": float, "mode": str}
#: Arguments of each operation. `dtype`, `batch`, `block`, `density` and `mode` have defaults.
OPS: dict[str, dict[str, type]] = {
    "matmul": {**_MATRIX, "batch": int, "pattern": str},
    "spmm": _BLOCKS,
    "spmm_t": _BLOCKS,
    "sddmm": _BLOCKS,
    "convolution": {
        **{"batch": int, "in": int, "out": int, "size": int, "kernel": int, "group": int},
        "dtype": str,
    },
    "attention": {"batch": int, "head": int, "length": int, "width": int, "dtype": str},
    **{name: _ROWS for name in ("softmax", "layer_norm", "gelu", "add", "divide", "exp")},
    **{name: _ROWS for name in ("sum", "fourier", "transpose")},
    "legendre": {"m": int, "degree": int, "latitude": int, "n": int, "dtype": str},
    "gather": {**_ROWS, "of": int},
    "segment_sum": {**_ROWS, "into": int},
}
_DEFAULT: dict[str, Any] = {
    "dtype": "fp32",
    "batch": 1,
    "block": 16,
    "density": 1.0,
    "mode": "static",
    "pattern": "dense",
    "head": 1,
    "group": 1,
    "kernel": 3,
}


def parse_op(text: str) -> Work:
    """Return the work of one operation written as its name and ``key=value`` pairs.

    Products are C[m, n] = A[m, k] B[k, n], `batch` of them; with ``pattern=2:4`` two in four of A
    are zero. In sparse ones A holds blocks of `block` x `block` entries, a share `density` of them
    live at random, `mode` static or dynamic. ``convolution``: `batch` images of `size` x `size`,
    `in` and `out` channels in `group` groups. ``attention``: `batch` sequences of `length` tokens,
    `head` heads that share `width`. ``gather``: `m` rows of `n` entries by index, out of `of` rows;
    ``segment_sum``: as many, added `into` so many. ``fourier``: `m` transforms of `n` points.
    ``legendre``: for each of `m` zonal wavenumbers a product of `degree` x `latitude` with `n`
    columns (levels, fields). The others act on `m` rows of `n` entries; ``sum`` reduces each.

    Raises
    ------
    ConfigError
        Names the word that is wrong and what may stand there.
    """
    name, values = parse_words(text, OPS, _DEFAULT, what="op")
    dtype = values["dtype"]
    if dtype not in FORMAT_BYTE:
        raise ConfigError(f"{name}: dtype {dtype!r} is unknown; {_suggest(dtype, FORMAT_BYTE)}")
    return _item(name, values)


_KIND = {int: "a whole number", float: "a number", str: "a word"}
_EXAMPLE = {"dtype": "fp16", "mode": "static", "density": 0.1}


def parse_words(
    text: str, known: Mapping[str, Mapping[str, type]], default: Mapping[str, Any], *, what: str
) -> tuple[str, dict[str, Any]]:
    """Return the name that `text` begins with and its arguments, all positive, defaults filled in.

    Raises
    ------
    ConfigError
        Names the word that is wrong and what may stand there.
    """
    name, *pairs = text.split() or [""]
    if name not in known:
        raise ConfigError(f"{what} {name!r} is unknown; {_suggest(name, known)}")
    given: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in known[name]:
            raise ConfigError(f"{name} has no argument {key!r}; {_suggest(key, known[name])}")
        if key in given:
            raise ConfigError(f"{name}: {key} is given twice")
        kind = known[name][key]
        try:
            given[key] = kind(value)
        except ValueError:
            raise ConfigError(f"{name}: {key} must be {_KIND[kind]}, got {value!r}") from None
    values = {key: value for key, value in default.items() if key in known[name]} | given
    missing = [key for key in known[name] if key not in values]
    if missing:
        example = _EXAMPLE.get(missing[0], 1024)
        raise ConfigError(
            f"{name}: {', '.join(missing)} missing; write as in {missing[0]}={example}"
        )
    for key, value in values.items():
        if isinstance(value, int | float) and not 0 < value < math.inf:
            raise ConfigError(f"{name}: {key} must be positive, got {value}")
    return name, values


def _item(name: str, values: dict[str, Any]) -> Work:
    f = values["dtype"]
    if name == "convolution":
        group, kernel = values["group"], values["kernel"]
        for side in ("in", "out"):
            if values[side] % group:
                raise ConfigError(
                    f"convolution: {side} must be a multiple of group = {group}, got {values[side]}"
                )
        n = values["batch"] * values["size"] ** 2
        fan_in, fan_out = values["in"] // group * kernel**2, values["out"] // group
        return Contraction(group, fan_out, fan_in, n, f, f, f, group, float(kernel**2))
    if name == "attention":
        head, length, width = values["head"], values["length"], values["width"]
        if width % head:
            raise ConfigError(f"attention: width must be a multiple of head = {head}, got {width}")
        batch, d = values["batch"] * head, width // head
        return Attention(batch, length, length, d, d, f)
    if name == "legendre":
        return Contraction(values["m"], values["degree"], values["latitude"], values["n"], f, f, f)
    return _work(name, values)


def _work(name: str, values: dict[str, Any]) -> Work:
    m, n, f = values["m"], values["n"], values["dtype"]
    match name:
        case "matmul":
            if values["pattern"] not in ("dense", "2:4"):
                raise ConfigError(
                    f"matmul: pattern must be dense or 2:4, got {values['pattern']!r}"
                )
            structured = values["pattern"] == "2:4"
            return Contraction(
                values["batch"], m, values["k"], n, f, f, f, is_structured=structured
            )
        case "softmax":
            return Softmax(m, n, f)
        case "layer_norm":
            return Softmax(m, n, f, "layer_norm")
        case "gelu":
            return Pointwise(m * n, "transcendental", f, f, 1, 2)
        case "add":
            return Pointwise(m * n, "arithmetic", f, f, 2)
        case "divide":
            return Pointwise(m * n, "divide", f, f, 2)
        case "exp":
            return Pointwise(m * n, "transcendental", f, f)
        case "sum":
            return Reduction(m, n, f, f)
        case "fourier":
            return Fourier(m, n, f)
        case "transpose":
            return Move(math.ceil(m * n * FORMAT_BYTE[f]), "rearrange")
        case "gather":
            return Gather(m, n, values["of"], f)
        case "segment_sum":
            return Scatter(m, n, values["into"], f)
    k, block, density, mode = (values[key] for key in ("k", "block", "density", "mode"))
    if density > 1:
        raise ConfigError(f"{name}: density must lie in (0, 1], got {density}")
    if mode not in ("static", "dynamic"):
        raise ConfigError(f"{name}: mode must be static or dynamic, got {mode!r}")
    n_place = -(-m // block) * -(-k // block)
    n_block = max(1, round(density * n_place))
    return SparseContraction(name, m, k, n, (block, block), n_block, f, f, f, mode)  # type: ignore[arg-type]


def _suggest(word: str, known: Any) -> str:
    near = get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known are {', '.join(known)}"
