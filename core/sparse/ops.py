"""Block-sparse products as torch ops with shape rules and gradients.

``core::spmm``    y[batch, rows] = x[batch, cols] @ S^T
``core::spmm_t``  dx[batch, cols] = dy[batch, rows] @ S
``core::sddmm``   the live blocks of dy^T @ x
``core::spmm_backward``   the last two together: dy and x are brought into the kernels' layout once

S is a block-sparse matrix: `values` [n_block, br, bc] in row order, its pattern as the int32
tensors of `core.sparse.pattern.BlockPattern`. The ops take tensors and integers only, so a
tracer sees the whole pattern. They are differentiable any number of times; `matmul` is the door
that layers use, as it hands the transposed order to the backward pass instead of sorting there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.checks import check_shape
from core.errors import DtypeError, PatternError, ShapeError
from core.kernels import call
from core.kernels.call import kernels_for
from core.sparse import routes
from core.sparse.break_even import ALWAYS_SPARSE, dense_from
from core.sparse.pattern import BlockPattern, transposed_order

_LIBRARY = torch.library.Library("core", "FRAGMENT")
_ONE_EACH = "give one entry per block"
_LIBRARY.define(
    "spmm(Tensor x, Tensor values, Tensor row_ptr, Tensor col_index, Tensor row_index, int rows)"
    " -> Tensor"
)
_LIBRARY.define(
    "spmm_t(Tensor dy, Tensor values, Tensor col_ptr, Tensor row_index_t, Tensor order_t, int cols)"
    " -> Tensor"
)
_LIBRARY.define(
    "sddmm(Tensor dy, Tensor x, Tensor row_index, Tensor col_index, int br, int bc) -> Tensor"
)

_LIBRARY.define(
    "spmm_backward(Tensor dy, Tensor x, Tensor values, Tensor row_index, Tensor col_index,"
    " Tensor col_ptr, Tensor row_index_t, Tensor order_t) -> (Tensor, Tensor)"
)


def matmul(
    x: Tensor,
    values: Tensor,
    pattern: BlockPattern,
    bias: Tensor | None = None,
    *,
    dense_from: float | None = None,
) -> Tensor:
    """Return ``x @ S^T + bias`` for the block-sparse matrix S of `pattern` and `values`.

    Parameters
    ----------
    x : Tensor, float [..., cols]
    values : Tensor, same dtype [n_block, br, bc]
        Live blocks in row order. Entries that reach over a ragged edge have no effect.
    pattern : BlockPattern
        On the device of `x`.
    bias : Tensor, same dtype [rows], optional
    dense_from : float, optional
        Share of live blocks from which on float32 and bfloat16 products run dense; without it,
        where this host was measured to gain from that (`core.sparse.break_even`). Compiled graphs
        do without it.

    Returns
    -------
    Tensor, same dtype [..., rows]
        The gradient with respect to `values` exists on live blocks only.

    Raises
    ------
    ShapeError, DtypeError, PatternError
        If the operands do not belong together.

    Examples
    --------
    >>> import torch, core
    >>> pattern = core.BlockPattern.from_mask(torch.eye(4, dtype=torch.bool), (2, 2))
    >>> values = torch.ones(pattern.n_block, 2, 2)
    >>> core.matmul(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), values, pattern)
    tensor([[3., 3., 7., 7.]])
    """
    rows, cols = pattern.shape
    if x.dim() == 0 or x.shape[-1] != cols:
        raise ShapeError(
            f"sparse matmul: x must have {cols} features (one per column of the matrix), "
            f"got {x.shape[-1] if x.dim() else 'a scalar'}; did you pass it transposed?"
        )
    if (
        x.dtype is not values.dtype
        or x.is_cpu is not values.is_cpu
        or x.layout is not torch.strided
    ):
        _check_alike("sparse matmul", "x", x, values)
    if values.shape != (pattern.n_block, *pattern.block):
        raise PatternError(
            f"sparse matmul: values must have shape {[pattern.n_block, *pattern.block]} "
            f"(one block per live block of the pattern), got {list(values.shape)}; "
            "rebuild the values after a change of pattern"
        )
    if bias is not None and (bias.shape != (rows,) or bias.dtype != x.dtype):
        raise ShapeError(
            f"sparse matmul: bias must be {x.dtype} [{rows}], got {bias.dtype} {list(bias.shape)}; "
            "give one entry per row of the matrix"
        )
    if bias is not None and bias.device != x.device:
        raise DtypeError(
            f"sparse matmul: bias is on {bias.device} but x on {x.device}; move one of them"
        )
    flat = x if x.dim() == 2 else x.reshape(-1, cols)
    if torch.is_grad_enabled() and (
        x.requires_grad or values.requires_grad or (bias is not None and bias.requires_grad)
    ):
        y = _Matmul.apply(flat, values, bias, pattern, dense_from)
    else:
        y = _affine(flat, values, bias, pattern, dense_from)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], rows)


def _affine(
    x: Tensor, values: Tensor, bias: Tensor | None, pattern: BlockPattern, limit: float | None
) -> Tensor:
    rows, index = pattern.shape[0], (pattern.row_ptr, pattern.col_index)
    if not is_unwatched(x):
        y = torch.ops.core.spmm.default(x, values, *index, pattern.row_index, rows)
        return y if bias is None else y + bias
    kernels = _kernels(x, values, values.shape, pattern.n_all, limit)
    if kernels is None or values.dtype != x.dtype or not index[0].is_cpu:
        y = _spmm(x, values, *index, pattern.row_index, rows, limit)
    else:  # a pattern is sound, and its fit was seen to
        if bias is not None and x.dtype == torch.float32 and bias.is_cpu and bias.is_contiguous():
            return call.spmm(kernels, x, values, *index, rows, bias)
        y = call.spmm(kernels, x, values, *index, rows)
    return y if bias is None else y.add_(bias)


def is_unwatched(x: Tensor) -> bool:
    """Whether no tracer, transform or compiler asks for the named op, whose dispatch costs 5 us."""
    return (
        type(x) is Tensor
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


class _Matmul(torch.autograd.Function):
    # `ctx` as an argument of forward: the newer setup_context costs some 15 us more a call.
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, pattern: BlockPattern,
        limit: float | None,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, values)
        ctx.pattern, ctx.limit = pattern, limit
        return _affine(x, values, bias, pattern, limit)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, values = ctx.saved_tensors
        p = ctx.pattern
        needs_dx, needs_dvalues, needs_dbias, *_ = ctx.needs_input_grad
        is_direct = not torch.is_grad_enabled() and is_unwatched(dy)
        kernels = None
        if is_direct and dy.dtype == values.dtype == torch.float32 and p.row_ptr.is_cpu:
            kernels = _kernels(x, values, values.shape, p.n_all, ctx.limit)
        named = torch.ops.core
        dx = dvalues = None
        if needs_dx and needs_dvalues:
            index = p.row_index, p.col_index, p.col_ptr, p.row_index_t, p.order_t
            if kernels is not None:
                dx, dvalues = call.spmm_backward(kernels, dy, x, values, *index)
            elif is_direct:
                dx, dvalues = _both(dy, x, values, *index, ctx.limit)
            else:
                dx, dvalues = named.spmm_backward.default(dy, x, values, *index)
        elif needs_dx:
            index_t = p.col_ptr, p.row_index_t, p.order_t
            if is_direct:
                dx = _spmm_t(dy, values, *index_t, x.shape[1], ctx.limit)
            else:
                dx = named.spmm_t.default(dy, values, *index_t, x.shape[1])
        elif needs_dvalues:
            where = p.row_index, p.col_index, p.block[0], p.block[1]
            if kernels is not None:
                dvalues = call.sddmm(kernels, dy, x, *where, p.row_ptr)
            elif is_direct:
                dvalues = _sddmm(dy, x, *where, ctx.limit)
            else:
                dvalues = named.sddmm.default(dy, x, *where)
        return dx, dvalues, dy.sum(0) if needs_dbias else None, None, None


def _spmm(
    x: Tensor, values: Tensor, row_ptr: Tensor, col_index: Tensor, row_index: Tensor, rows: int,
    limit: float | None = None,
) -> Tensor:  # fmt: skip
    _check_operands("core::spmm", "x", x, values)
    n_row = row_ptr.numel() - 1
    check_pattern_tensor("core::spmm", row_ptr, values)
    check_pattern("core::spmm", "rows", rows, n_row, values.shape[1], values, col_index)
    if (
        kernels := _kernels(
            x, values, values.shape, n_row * -(-x.shape[1] // values.shape[2]), limit
        )
    ) is not None:
        return call.spmm(kernels, x, values, row_ptr, col_index, rows)
    return routes.spmm(x, values, row_index, col_index, n_row)[:, :rows].contiguous()


def _spmm_t(
    dy: Tensor, values: Tensor, col_ptr: Tensor, row_index_t: Tensor, order_t: Tensor, cols: int,
    limit: float | None = None,
) -> Tensor:  # fmt: skip
    _check_operands("core::spmm_t", "dy", dy, values)
    n_col = col_ptr.numel() - 1
    check_pattern_tensor("core::spmm_t", col_ptr, values)
    check_pattern_tensor("core::spmm_t", order_t, values)
    check_shape("core::spmm_t", "order_t", order_t, (values.shape[0],), _ONE_EACH)
    check_pattern("core::spmm_t", "cols", cols, n_col, values.shape[2], values, row_index_t)
    if (
        kernels := _kernels(
            dy, values, values.shape, n_col * -(-dy.shape[1] // values.shape[1]), limit
        )
    ) is not None:
        values_t = call.transpose_blocks(kernels, values, order_t)
        return call.spmm(kernels, dy, values_t, col_ptr, row_index_t, cols)
    col_index_t = _index_from_ptr(col_ptr, order_t)
    values_t = values.index_select(0, order_t).transpose(1, 2)
    return routes.spmm(dy, values_t, col_index_t, row_index_t, n_col)[:, :cols].contiguous()


def _sddmm(
    dy: Tensor, x: Tensor, row_index: Tensor, col_index: Tensor, br: int, bc: int,
    limit: float | None = None,
) -> Tensor:  # fmt: skip
    check_shape("core::sddmm", "dy", dy, (x.shape[0], None), "dy and x share the batch axis")
    check_pattern_tensor("core::sddmm", row_index, x)
    check_pattern_tensor("core::sddmm", col_index, x)
    check_shape("core::sddmm", "col_index", col_index, tuple(row_index.shape), _ONE_EACH)
    if dy.dtype != x.dtype:
        raise DtypeError(f"core::sddmm: dy is {dy.dtype} but x is {x.dtype}; convert one of them")
    check_place("core::sddmm", "dy", dy, "x", x)
    if br < 1 or bc < 1:
        raise PatternError(
            f"core::sddmm: blocks must have at least one row and column, got {br} x {bc}; "
            "pass the block of the pattern"
        )
    n_all = -(-dy.shape[1] // br) * -(-x.shape[1] // bc)
    if (kernels := _kernels(dy, x, (row_index.numel(), br, bc), n_all, limit)) is not None:
        return call.sddmm(kernels, dy, x, row_index, col_index, br, bc)
    return routes.sddmm(dy, x, row_index, col_index, (br, bc))


def _both(
    dy: Tensor, x: Tensor, values: Tensor, row_index: Tensor, col_index: Tensor, col_ptr: Tensor,
    row_index_t: Tensor, order_t: Tensor, limit: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    _, br, bc = values.shape
    grid = -(-dy.shape[1] // br), col_ptr.numel() - 1
    kernels = _kernels(x, values, values.shape, grid[0] * grid[1], limit)
    if x.dtype != torch.float32 or kernels is None or not dy.dtype == x.dtype == values.dtype:
        dvalues = _sddmm(dy, x, row_index, col_index, br, bc, limit)
        if kernels is None and not routes.is_thin(values.shape[0], grid, (br, bc)):
            _check_operands("core::spmm_t", "dy", dy, values)
            dense = routes.expand(values, row_index, col_index, grid)
            return dy @ dense[: dy.shape[1], : x.shape[1]], dvalues
        return _spmm_t(dy, values, col_ptr, row_index_t, order_t, x.shape[1], limit), dvalues
    who = "core::spmm_backward"
    check_shape(who, "dy", dy, (x.shape[0], None), "dy and x share the batch axis")
    check_place(who, "dy", dy, "values", values)
    check_place(who, "x", x, "values", values)
    for part in (row_index, col_index, col_ptr, row_index_t, order_t):
        check_pattern_tensor(who, part, values)
    for name, part in (("col_index", col_index), ("order_t", order_t)):
        check_shape(who, name, part, (values.shape[0],), _ONE_EACH)
    check_pattern(who, "rows", dy.shape[1], -(-dy.shape[1] // br), br, values, row_index)
    check_pattern(who, "cols", x.shape[1], col_ptr.numel() - 1, bc, values, row_index_t)
    index = row_index, col_index, col_ptr, row_index_t, order_t
    return call.spmm_backward(kernels, dy, x, values, *index)


def _kernels(
    x: Tensor, values: Tensor, shape: tuple[int, ...], n_all: int, limit: float | None
) -> call.Kernels | None:
    """Return the kernels if they can take these operands and are no slower than a dense product."""
    kernels = kernels_for(x, values, call.PRODUCT_DTYPES)
    n_block, br, bc = shape
    if kernels is None or x.dtype == torch.float16:  # dense products in fp16 are slow everywhere
        return kernels
    if limit is None:
        if n_block < ALWAYS_SPARSE * n_all:
            return kernels
        limit = dense_from((br, bc), x.dtype)
    return kernels if n_block < limit * n_all else None


def route_of(
    pattern: BlockPattern, limit: float | None = None, dtype: torch.dtype = torch.float32
) -> str:
    """Return how products of `dtype` run on the CPU: ``"kernels"``, ``"dense"`` or ``"torch"``."""
    if call.kernels() is None or dtype not in call.PRODUCT_DTYPES:
        return "torch"
    if dtype == torch.float16:
        return "kernels"
    if limit is None and pattern.density >= ALWAYS_SPARSE:
        limit = dense_from(pattern.block, dtype)
    is_thin = pattern.density < (ALWAYS_SPARSE if limit is None else limit)
    return "kernels" if is_thin else "dense"


def _check_operands(who: str, name: str, x: Tensor, values: Tensor) -> None:
    if x.dim() != 2 or values.dim() != 3:
        raise ShapeError(
            f"{who}: {name} must be [batch, features] and values [n_block, br, bc], "
            f"got {list(x.shape)} and {list(values.shape)}; flatten leading axes first"
        )
    _check_alike(who, name, x, values)


def _check_alike(who: str, name: str, x: Tensor, values: Tensor) -> None:
    if x.dtype != values.dtype:
        raise DtypeError(
            f"{who}: {name} is {x.dtype} but values are {values.dtype}; convert one of them"
        )
    if x.layout != torch.strided:
        raise DtypeError(f"{who}: {name} must be dense, got {x.layout}; convert it, .to_dense()")
    check_place(who, name, x, "values", values)


def check_place(who: str, name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Raise DtypeError unless both tensors are on one device."""
    if x.device != other.device:
        raise DtypeError(
            f"{who}: {name} is on {x.device} but {other_name} on {other.device}; move one of them"
        )


def check_pattern(
    who: str, name: str, size: int, n: int, width: int, values: Tensor, index: Tensor
) -> None:
    """Raise PatternError unless `size` rows or columns and the blocks fit `n` block rows."""
    check_pattern_tensor(who, index, values)
    if not (n - 1) * width < size <= n * width or index.numel() != values.shape[0]:
        raise PatternError(
            f"{who}: {name} = {size} and {values.shape[0]} blocks of {list(values.shape[1:])} do "
            f"not fit a pattern of {n} block rows or columns and {index.numel()} live blocks; "
            "pass the tensors of one BlockPattern"
        )


def check_pattern_tensor(who: str, index: Tensor, operand: Tensor) -> None:
    """Raise DtypeError or ShapeError unless kernels can read the tensor of a pattern."""
    if index.dtype != torch.int32 or index.device != operand.device:
        raise DtypeError(
            f"{who}: pattern tensors must be int32 on {operand.device}, got {index.dtype} on "
            f"{index.device}; move the pattern with the layer, layer.to(device)"
        )
    if index.dim() != 1 or not index.is_contiguous():
        raise ShapeError(
            f"{who}: pattern tensors must be contiguous with one axis, got {list(index.shape)} "
            f"with strides {index.stride()}; pass the tensors of one BlockPattern"
        )


def _index_from_ptr(ptr: Tensor, like: Tensor) -> Tensor:
    n = torch.arange(ptr.numel() - 1, dtype=torch.int32, device=ptr.device)
    return n.repeat_interleave(ptr.diff(), output_size=like.numel())


for _name, _kernel in (
    ("spmm", _spmm),
    ("spmm_t", _spmm_t),
    ("sddmm", _sddmm),
    ("spmm_backward", _both),
):
    _LIBRARY.impl(_name, _kernel, "CompositeExplicitAutograd")


@torch.library.register_fake("core::spmm", lib=_LIBRARY)
def _(x: Tensor, values: Tensor, row_ptr: Tensor, col_index: Tensor, row_index: Tensor, rows: int):  # type: ignore[no-untyped-def]
    _check_operands("core::spmm", "x", x, values)
    for part in (row_ptr, col_index, row_index):
        check_place("core::spmm", "x", x, "the pattern", part)
    return x.new_empty(x.shape[0], rows)


@torch.library.register_fake("core::spmm_t", lib=_LIBRARY)
def _(dy: Tensor, values: Tensor, col_ptr: Tensor, row_index_t: Tensor, order_t: Tensor, cols: int):  # type: ignore[no-untyped-def]
    _check_operands("core::spmm_t", "dy", dy, values)
    for part in (col_ptr, row_index_t, order_t):
        check_place("core::spmm_t", "dy", dy, "the pattern", part)
    return dy.new_empty(dy.shape[0], cols)


@torch.library.register_fake("core::sddmm", lib=_LIBRARY)
def _(dy: Tensor, x: Tensor, row_index: Tensor, col_index: Tensor, br: int, bc: int):  # type: ignore[no-untyped-def]
    check_place("core::sddmm", "dy", dy, "x", x)
    for part in (row_index, col_index):
        check_place("core::sddmm", "x", x, "the pattern", part)
    return x.new_empty(row_index.numel(), br, bc)


@torch.library.register_fake("core::spmm_backward", lib=_LIBRARY)
def _(dy: Tensor, x: Tensor, values: Tensor, *index: Tensor):  # type: ignore[no-untyped-def]
    for part in (dy, values, *index):
        check_place("core::spmm_backward", "x", x, "another operand", part)
    return x.new_empty(x.shape), values.new_empty(values.shape)


def _save_spmm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, _, col_index, row_index, _ = inputs
    ctx.save_for_backward(x, values, col_index, row_index)


def _spmm_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, values, col_index, row_index = ctx.saved_tensors
    _, br, bc = values.shape
    transposed = transposed_order(row_index, col_index, -(-x.shape[1] // bc))
    dx = torch.ops.core.spmm_t(g, values, *transposed, x.shape[1])
    dvalues = torch.ops.core.sddmm(g, x, row_index, col_index, br, bc)
    return dx, dvalues, None, None, None, None


def _save_spmm_t(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:-1])


def _spmm_t_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    dy, values, col_ptr, row_index_t, order_t = ctx.saved_tensors
    _, br, bc = values.shape
    col_index_t = _index_from_ptr(col_ptr, order_t)
    # The order that undoes order_t puts both indices back into row order.
    back = torch.sort(order_t).indices
    row_index, col_index = row_index_t.index_select(0, back), col_index_t.index_select(0, back)
    row_ptr = _pointer(row_index, -(-dy.shape[1] // br))
    ddy = torch.ops.core.spmm(g, values, row_ptr, col_index, row_index, dy.shape[1])
    dvalues = torch.ops.core.sddmm(dy, g, row_index, col_index, br, bc)
    return ddy, dvalues, None, None, None, None


def _save_sddmm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:-2])


def _sddmm_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    dy, x, row_index, col_index = ctx.saved_tensors
    _, br, bc = g.shape
    rows, cols = dy.shape[1], x.shape[1]
    row_ptr = _pointer(row_index, -(-rows // br))
    ddy = torch.ops.core.spmm(x, g, row_ptr, col_index, row_index, rows)
    transposed = transposed_order(row_index, col_index, -(-cols // bc))
    dx = torch.ops.core.spmm_t.default(dy, g, *transposed, cols)
    return ddy, dx, None, None, None, None


def _save_both(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _both_derivative(ctx: Any, gx: Tensor, gv: Tensor) -> tuple[Tensor | None, ...]:
    dy, x, values, row_index, col_index, col_ptr, row_index_t, order_t = ctx.saved_tensors
    _, br, bc = values.shape
    row_ptr = _pointer(row_index, -(-dy.shape[1] // br))
    rows, transposed = dy.shape[1], (col_ptr, row_index_t, order_t)
    ddy = torch.ops.core.spmm(gx, values, row_ptr, col_index, row_index, rows)
    ddy = ddy + torch.ops.core.spmm(x, gv, row_ptr, col_index, row_index, rows)
    dx = torch.ops.core.spmm_t(dy, gv, *transposed, x.shape[1])
    dvalues = torch.ops.core.sddmm(dy, gx, row_index, col_index, br, bc)
    return ddy, dx, dvalues, None, None, None, None, None


def _pointer(index: Tensor, n: int) -> Tensor:
    edge = torch.arange(n + 1, dtype=torch.int32, device=index.device)
    return torch.searchsorted(index, edge, out_int32=True)


for _name, _backward, _save in (
    ("spmm", _spmm_backward, _save_spmm),
    ("spmm_t", _spmm_t_backward, _save_spmm_t),
    ("sddmm", _sddmm_backward, _save_sddmm),
    ("spmm_backward", _both_derivative, _save_both),
):
    torch.library.register_autograd(f"core::{_name}", _backward, setup_context=_save, lib=_LIBRARY)
