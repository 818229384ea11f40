"""Products with sparse operands: `core` block ops, and CSR or BSR tensors behind `aten.mm`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hw.program import Op, TensorInfo
from hw.rules.pointwise import pointwise
from hw.rules.registry import rule
from hw.work import Pointwise, SparseContraction, SparseProduct, Work


def _item(
    product: SparseProduct,
    shape: tuple[int, int],
    n: int,
    values: TensorInfo,
    dense: TensorInfo,
    out: TensorInfo,
    index: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
) -> list[Work]:
    n_block, br, bc = values.shape
    if n_block == 0 or n == 0:
        return []
    row, col = index if index is not None else (None, None)
    return [
        SparseContraction(
            product=product,
            rows=shape[0],
            cols=shape[1],
            n=n,
            block=(br, bc),
            n_block=n_block,
            weight_format=values.format,
            dense_format=dense.format,
            out_format=out.format,
            row_index=row,
            col_index=col,
        )
    ]


def _pair(
    row: NDArray[np.int64] | None, col: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    return None if row is None or col is None else (row, col)


@rule("core.spmm")
def _spmm(op: Op) -> list[Work]:
    x, values = op.tensor("x"), op.tensor("values")
    index = _pair(op.tensor("row_index").data, op.tensor("col_index").data)
    shape = (op.args["rows"], x.shape[1])
    return _item("spmm", shape, x.shape[0], values, x, op.out, index)


@rule("core.spmm_t")
def _spmm_t(op: Op) -> list[Work]:
    """Rebuild the columns from their pointer: the index tensors come in column order."""
    dy, values = op.tensor("dy"), op.tensor("values")
    pointer, row = op.tensor("col_ptr").data, op.tensor("row_index_t").data
    col = None
    if pointer is not None:
        col = np.repeat(np.arange(len(pointer) - 1, dtype=np.int64), np.diff(pointer))
    shape = (dy.shape[1], op.args["cols"])
    return _item("spmm_t", shape, dy.shape[0], values, dy, op.out, _pair(row, col))


@rule("core.sddmm")
def _sddmm(op: Op) -> list[Work]:
    dy, x = op.tensor("dy"), op.tensor("x")
    index = _pair(op.tensor("row_index").data, op.tensor("col_index").data)
    shape = (dy.shape[1], x.shape[1])
    return _item("sddmm", shape, dy.shape[0], op.out, x, op.out, index)


@rule("core.spmm_backward")
def _spmm_backward(op: Op) -> list[Work]:
    """Return both gradients as the two products that they are."""
    dy, x, values = op.tensor("dy"), op.tensor("x"), op.tensor("values")
    index = _pair(op.tensor("row_index").data, op.tensor("col_index").data)
    shape, batch = (dy.shape[1], x.shape[1]), x.shape[0]
    dx, dvalues = op.outputs
    inward = _item("spmm_t", shape, batch, values, dy, dx, index)
    return inward + _item("sddmm", shape, batch, dvalues, x, dvalues, index)


@rule("core.linear_int8")
def _linear_int8(op: Op) -> list[Work]:
    """Charge the rounding of the inputs, then the product of two int8 operands."""
    x, codes = op.tensor("x"), op.tensor("codes")
    index = _pair(op.tensor("row_index").data, op.tensor("col_index").data)
    narrow = replace(x, format=codes.format)
    shape = (op.args["rows"], x.shape[1])
    product = _item("spmm", shape, x.shape[0], codes, narrow, op.out, index)
    rounding = Pointwise(x.n_element, "arithmetic", x.format, codes.format, 1, 3)
    return [rounding, *product]


def layout_product(a: TensorInfo, b: TensorInfo, out: TensorInfo) -> list[Work]:
    """Return the product a @ b in which at least one operand is stored sparse.

    A sparse b is the transpose of a sparse a: C^T = B^T A^T. Of two sparse operands the second
    counts as dense, which is an upper bound.
    """
    if a.layout != "strided":
        matrix, dense = a, b
        n = b.shape[1] if len(b.shape) > 1 else 1
        product: SparseProduct = "spmm"
    else:
        matrix, dense, n, product = b, a, a.shape[0], "spmm_t"
    br, bc = matrix.block
    n_block = matrix.n_stored // (br * bc)
    if n_block == 0 or n == 0:
        return []
    row, col = matrix.index if matrix.index is not None else (None, None)
    return [
        SparseContraction(
            product,
            matrix.shape[0],
            matrix.shape[1],
            n,
            (br, bc),
            n_block,
            matrix.format,
            dense.format,
            out.format,
            row_index=row,
            col_index=col,
        )
    ]


@rule("aten.sparse_sampled_addmm")
def _sampled(op: Op) -> list[Work]:
    pattern, a, b = op.tensor("self"), op.tensor("mat1"), op.tensor("mat2")
    n_block = pattern.n_stored
    if n_block == 0:
        return []
    row, col = pattern.index if pattern.index is not None else (None, None)
    return [
        SparseContraction(
            "sddmm",
            a.shape[0],
            b.shape[1],
            a.shape[1],
            (1, 1),
            n_block,
            pattern.format,
            a.format,
            op.out.format,
            row_index=row,
            col_index=col,
        ),
        pointwise(op, "arithmetic", 1),
    ]
