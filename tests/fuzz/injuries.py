"""How a good input is spoilt: its bytes, the values in its JSON, or the tensors of a checkpoint.

Everything is drawn from one generator: the same seed makes the same inputs.
"""

import copy
import json
import random

import torch

_DEEP = "[" * 3000
WORDS = {
    "smiles": [*r"[]()@/\.#=:*1cn~>$é", "%12", "@@", "[Fe]", "[U+6]", "[nH]", "[2H]"],
    "csv": [*',;\t"<\n\r\0-', "\r\n", "nan", "inf", "1e999", "µM", "smiles", '"' * 3, "\ufeff"],
    "sdf": [*("M  END\n", "$$$$\n", "> <y>\n", "V3000", "999", "\n\n", "-1", "M  CHG  1 1 9\n")],
    "toml": [*'[]="\n{}#,.', "nan", "inf", "[[sweep]]", "-1", "1e999", "true", "a=" + _DEEP],
    "json": [*"{}[]:,", "null", "NaN", "1e999", '"schema"', "true", "\\u0000", _DEEP],
    "op": ["=", " ", "-1", "0", "1e9", "nan", "density", "block", "fp8", "banana", "2.5", "=="],
    "override": [*"=.[]{}\",'", " ", "none", "nan", "-1", "1e999", "true", "train", _DEEP],
    "bytes": ["\0" * 8, "\x7f" * 4, "HDF", "CDF", "{}", "\x89", "TREE", "OHDR", "\0\0\x10\0"],
}
ODD = [None, True, -1, 0, 2**63, 1e308, float("nan"), "", "x", "<b>", [], {}, [[]], [1, "a"]]
LARGEST = 200_000  # characters; no injury makes an input grow without end


def spoil(data: bytes, donor: bytes, words: list[str], draw: random.Random) -> bytes:
    """Give `data` with one to four injuries, more often one."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
        at = draw.randrange(len(out) + 1)
        kind = draw.randrange(7)
        if kind == 0 and out:
            out[min(at, len(out) - 1)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del out[at : at + draw.randint(1, 12)]
        elif kind == 2:
            out[at:at] = out[at : at + draw.randint(1, 40)] * draw.randint(1, 3)
        elif kind == 3:
            cut = draw.randrange(len(donor) + 1)
            out[at:at] = donor[cut : cut + draw.randint(1, 60)]
        elif kind == 4:
            out[at:at] = draw.choice(words).encode()
        elif kind == 5:
            del out[at:]
        else:
            out[at:at] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 4)))
    return bytes(out[:LARGEST])


def _nodes(value):
    """Every (container, key) of a JSON value."""
    places = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inside in list(places):
        yield value, key
        if isinstance(inside, dict | list):
            yield from _nodes(inside)


def spoil_values(value, draw: random.Random):
    """Give a JSON value in which one to three places are gone, renamed, swapped or of odd value."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 2, 3))):
        places = list(_nodes(value))
        if not places:
            break
        holder, key = draw.choice(places)
        kind = draw.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice(["x", "", "schema", str(key) + "_"])] = holder.pop(key)
        elif kind == 2:
            other, name = draw.choice(places)
            with_it = copy.deepcopy(other[name]) if _has(other, name) else None
            holder[key] = with_it
        else:
            holder[key] = copy.deepcopy(draw.choice(ODD))
    return value


def _has(holder, key) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def spoil_tensors(tensors, draw: random.Random):
    """Give the tensors with one gone, renamed, of another shape, another dtype, or not finite."""
    out = dict(tensors)
    name = draw.choice(sorted(out))
    kind = draw.randrange(6)
    if kind == 0:
        del out[name]
    elif kind == 1:
        out[name + "x"] = out.pop(name)
    elif kind == 2:
        out[name] = out[name].reshape(-1)[: draw.randint(0, 3)].clone()
    elif kind == 3:
        other = draw.choice([torch.int8, torch.float16, torch.float64, torch.bool])
        out[name] = out[name].to(other)
    elif kind == 4:
        out[name] = torch.full_like(out[name], -1)
    else:
        out["more"] = torch.zeros(draw.randint(0, 3), 2)
    return out


def as_json(value) -> bytes:
    return json.dumps(value).encode()
