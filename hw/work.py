"""What an operation asks of a machine, in machine-independent terms: the waist of `hw`.

Rules (`hw.rules`) turn each traced PyTorch op into a list of these items; targets (`hw.targets`)
turn each item into time, energy and memory on one machine. Neither side knows the other.
Formats are the short names of `core.precision.formats` (``"fp32"``, ``"bf16"``, ``"int8"`` ...).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hw.formats import FORMAT_BYTE

SparseProduct = Literal["spmm", "spmm_t", "sddmm"]


@dataclass(frozen=True)
class Contraction:
    """`batch` independent dense products C[m, n] = sum_k A[m, k] B[k, n].

    A convolution is a contraction with its spatial positions in `n` and `fan_in` in `k`;
    `n_group` > 1 says that the batch stems from grouped operands. `window` is how many entries of
    B stem from each entry that is stored: the overlapping windows of a convolution's input.
    `is_structured` says that two in each four entries of A are zero along `k` (2:4): a GPU's
    tensor cores skip them, other machines run the product in full. `split` fixes how a tile
    machine spreads m, n and k, where products share operands (`hw.layout`).
    """

    batch: int
    m: int
    k: int
    n: int
    a_format: str
    b_format: str
    out_format: str
    n_group: int = 1
    window: float = 1.0
    is_structured: bool = False
    split: tuple[int, int, int] | None = None

    @property
    def n_mac(self) -> int:
        """Multiply-adds."""
        return self.batch * self.m * self.k * self.n


@dataclass(frozen=True)
class SparseContraction:
    """A product with a block-sparse matrix S of `rows` x `cols` entries and a dense side of `n`.

    ``spmm``: Y[rows, n] = S X[cols, n]. ``spmm_t``: X[cols, n] = S^T Y[rows, n].
    ``sddmm``: the live blocks of Y[rows, n] X[cols, n]^T.
    `row_index` and `col_index` hold the block coordinates of each live block; they are None when
    only the count is known (fake tensors), and then the pattern counts as uniformly random.
    `mode` says whether the pattern is known when the program is planned.
    """

    product: SparseProduct
    rows: int
    cols: int
    n: int
    block: tuple[int, int]
    n_block: int
    weight_format: str
    dense_format: str
    out_format: str
    mode: Literal["static", "dynamic"] = "static"
    row_index: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    col_index: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)

    @property
    def n_mac(self) -> int:
        """Multiply-adds on live blocks."""
        return self.n_block * self.block[0] * self.block[1] * self.n


def dense_shape(item: SparseContraction) -> tuple[int, int, int]:
    """Return rows, depth and columns of the dense product that an item stands for."""
    if item.product == "spmm_t":
        return item.cols, item.rows, item.n
    if item.product == "sddmm":
        return item.rows, item.n, item.cols
    return item.rows, item.cols, item.n


@dataclass(frozen=True)
class Pointwise:
    """`n_element` results, each from `n_input` operands by `flop_per_element` operations.

    `kind` is ``"arithmetic"`` (add, multiply, compare, select), ``"divide"`` (division, square
    root) or ``"transcendental"`` (exp, log, tanh, erf, sin ...). `is_bias` says that it adds a bias
    to the product of the same op.
    """

    n_element: int
    kind: Literal["arithmetic", "divide", "transcendental"]
    in_format: str
    out_format: str
    n_input: int = 1
    flop_per_element: float = 1.0
    is_bias: bool = False


@dataclass(frozen=True)
class Reduction:
    """`n_out` results, each combining `n_reduced` entries (sum, max, mean, a norm's statistics)."""

    n_out: int
    n_reduced: int
    in_format: str
    out_format: str


@dataclass(frozen=True)
class Fused:
    """Pointwise steps over the same entries in one pass, at the end perhaps a reduction of them.

    Values between the steps stay in registers: the `n_input` of a step counts only operands that
    come from memory. The last step's result, or the reduction's, goes there, and beside it inner
    results that are needed later, in the formats `kept`.
    """

    steps: tuple[Pointwise, ...]
    reduction: Reduction | None = None
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Softmax:
    """`n_row` rows of `n_col` entries, normalised; also layer norm, by `kind`."""

    n_row: int
    n_col: int
    in_format: str
    kind: Literal["softmax", "layer_norm"] = "softmax"


@dataclass(frozen=True)
class Attention:
    """`batch` heads of softmax(Q K^T) V, or its gradients: one item, made of `parts`.

    A machine that keeps the scores on the chip while they are used may run it as one kernel; on
    every other the parts run one after another.
    """

    batch: int
    n_query: int
    n_key: int
    d: int
    d_value: int
    format: str
    is_backward: bool = False

    @property
    def parts(self) -> tuple[Work, ...]:
        """The products, row operations and moves that it takes one by one.

        Forward: scores, softmax, weighted sum. Backwards: scores once more, then the gradients of
        weights, values, queries and keys; those of values and keys sum over the queries, and read
        the weights transposed.
        """
        f, n, q, k = self.format, self.batch, self.n_query, self.n_key
        scores = Contraction(n, q, self.d, k, f, f, f), Softmax(n * q, k, f)
        if not self.is_backward:
            return (*scores, Contraction(n, q, k, self.d_value, f, f, f))
        transposed = Move(n * q * k * int(FORMAT_BYTE[f]), "reorder")
        return (
            *scores,
            Contraction(n, q, self.d_value, k, f, f, f),
            Pointwise(n * q * k, "arithmetic", f, f, 2, 3),
            transposed,
            Contraction(n, k, q, self.d_value, f, f, f),
            Contraction(n, q, k, self.d, f, f, f),
            transposed,
            Contraction(n, k, q, self.d, f, f, f),
        )

    @property
    def n_mac(self) -> int:
        """Multiply-adds."""
        return sum(part.n_mac for part in self.parts if isinstance(part, Contraction))


@dataclass(frozen=True)
class Gather:
    """`n_row` rows of `row_element` entries picked from `n_source` rows by a run-time index."""

    n_row: int
    row_element: int
    n_source: int
    in_format: str


@dataclass(frozen=True)
class Scatter:
    """`n_row` rows of `row_element` entries added into `n_target` rows by a run-time index."""

    n_row: int
    row_element: int
    n_target: int
    in_format: str


@dataclass(frozen=True)
class Fourier:
    """`batch` real-to-complex or complex-to-real transforms of `length` points."""

    batch: int
    length: int
    in_format: str


@dataclass(frozen=True)
class Move:
    """`n_byte` copied or rearranged without arithmetic (concatenation, layout change, fill).

    ``"reorder"`` is an operand that a product reads in another order than it lies in (transposed,
    split into heads): work where entries have to travel to their tile, none for a machine that
    addresses one memory.
    """

    n_byte: int
    kind: Literal["copy", "rearrange", "reorder", "fill"] = "copy"


@dataclass(frozen=True)
class HostRead:
    """A value that the host reads before the program can go on: a stall on any accelerator."""

    n_byte: int


Work = (
    Contraction
    | SparseContraction
    | Pointwise
    | Reduction
    | Fused
    | Softmax
    | Attention
    | Gather
    | Scatter
    | Fourier
    | Move
    | HostRead
)
