"""A traced program: ops with their tensors, and the storages that the tensors live in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hw.formats import FORMAT_BYTE

Phase = Literal["forward", "backward", "optimizer"]
Role = Literal["parameter", "buffer", "input", "optimizer", "activation"]
RESIDENT: tuple[Role, ...] = ("parameter", "buffer", "input", "optimizer")


@dataclass(frozen=True)
class TensorInfo:
    """What a rule may know of a tensor.

    `n_stored` counts the stored entries: all of a strided tensor, live blocks times block area of
    a BSR one. `index` holds the row and column of each stored block where values are known.
    `data` holds the entries of an index tensor handed to a `core` op, else None.
    `storage` is a key into `Program.storages`; views share it.
    """

    shape: tuple[int, ...]
    format: str
    storage: int
    is_complex: bool = False
    layout: str = "strided"
    n_stored: int = 0
    block: tuple[int, int] = (1, 1)
    is_contiguous: bool = True
    stride: tuple[int, ...] = ()
    index: tuple[NDArray[np.int64], NDArray[np.int64]] | None = field(
        default=None, compare=False, repr=False
    )
    data: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)

    @property
    def n_element(self) -> int:
        """Entries of the shape; a complex entry counts as two."""
        return math.prod(self.shape) * (2 if self.is_complex else 1)

    @property
    def byte(self) -> int:
        """Bytes of the stored entries."""
        return math.ceil(self.n_stored * FORMAT_BYTE[self.format] * (2 if self.is_complex else 1))


@dataclass(frozen=True)
class Op:
    """One dispatched operation.

    `name` is namespace and operator (``"aten.mm"``, ``"core.spmm"``), in-place ones with their
    underscore. `args` maps each argument name of the operator's schema to its value, defaults
    included; tensors stand as `TensorInfo`, lists as tuples. `module` is the path of the
    `torch.nn.Module` that asked for it, empty outside modules.
    """

    name: str
    args: dict[str, Any]
    outputs: tuple[TensorInfo, ...]
    phase: Phase
    module: str

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Every tensor among the arguments, in order."""
        return tuple(_tensors(self.args.values()))

    @property
    def out(self) -> TensorInfo:
        """The first result."""
        return self.outputs[0]

    def tensor(self, name: str) -> TensorInfo:
        """Return a tensor argument by its name in the schema."""
        value = self.args[name]
        assert isinstance(value, TensorInfo), f"{self.name}: {name} is {value!r}"
        return value


@dataclass
class Storage:
    """Memory that tensors share. Live from `first_op` to `last_op`; a resident one throughout."""

    byte: int
    role: Role
    name: str
    first_op: int
    last_op: int


@dataclass(frozen=True)
class Program:
    """Ops in the order in which they ran, and the storages by key."""

    ops: tuple[Op, ...]
    storages: dict[int, Storage]

    def __len__(self) -> int:
        return len(self.ops)

    @property
    def resident_byte(self) -> int:
        """Bytes of parameters, buffers, inputs and optimizer state."""
        return sum(s.byte for s in self.storages.values() if s.role in RESIDENT)

    def live_byte(self) -> NDArray[np.float64]:
        """Return float64 [op]: bytes of all live storages while each op runs, resident included."""
        change = np.zeros(len(self.ops) + 1)
        for storage in self.storages.values():
            if storage.role not in RESIDENT:
                change[storage.first_op] += storage.byte
                change[min(storage.last_op + 1, len(self.ops))] -= storage.byte
        return self.resident_byte + np.cumsum(change)[: len(self.ops)]

    def live_at(self, i_op: int) -> list[Storage]:
        """Return the storages that are live while op `i_op` runs, largest first."""
        live = [
            s
            for s in self.storages.values()
            if s.role in RESIDENT or s.first_op <= i_op <= s.last_op
        ]
        return sorted(live, key=lambda s: -s.byte)

    def count(self) -> Counter[str]:
        """Return how often each op name occurs."""
        return Counter(op.name for op in self.ops)


def _tensors(values: Any) -> Iterator[TensorInfo]:
    for value in values:
        if isinstance(value, TensorInfo):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)
