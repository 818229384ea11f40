"""Sparse layers in a row whose activations stay in the layout of the kernels between them.

A sparse layer by itself brings its inputs into that layout and its outputs out of it, forward and
backward, which at 99 % zeros takes longer than the products. Functions of single entries do not
mind in which order these lie, so between two sparse layers nothing has to be moved.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from core.kernels import call, packed
from core.kernels.packed import Packed
from core.sparse.integer_stack import run_integers
from core.sparse.linear import BlockSparseLinear, FrozenLinear
from core.sparse.ops import is_unwatched
from core.sparse.pattern import BlockPattern

#: Modules that treat every entry alike, wherever it lies.
POINTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus,
    nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.Threshold, nn.Dropout, nn.Identity,
)  # fmt: skip


class PackedSequential(nn.Sequential):
    """`torch.nn.Sequential` that keeps activations packed from one sparse layer to the next.

    Gives what `torch.nn.Sequential` gives up to the order of sums (and, with dropout, another draw
    of the same law). Two or more `BlockSparseLinear` in a row, with functions of single entries
    (`POINTWISE`) between them, run packed where the compiled kernels can: float32 on the CPU,
    block sides that are multiples of four and divide the features, no formats to imitate, no hooks.
    Everything else runs as it is. Packed layers are differentiable once.

    After `freeze`, layers of int8 weights and activations hand on 8-bit codes instead (see
    `core.sparse.integer_stack`), and give what they give one by one, bit for bit.

    Examples
    --------
    >>> import torch, core
    >>> g = torch.Generator().manual_seed(0)
    >>> spec = core.LayerSpec(density=0.25, block=4)
    >>> layers = [core.build_linear(16, 16, spec, generator=g) for _ in range(2)]
    >>> model = core.PackedSequential(layers[0], torch.nn.ReLU(), layers[1])
    >>> x = torch.ones(3, 16)
    >>> torch.allclose(model(x), layers[1](layers[0](x).relu()), atol=1e-6)
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        kernels = call.kernels()
        if kernels is None or not x.is_cpu or x.dtype != torch.float32 or not is_unwatched(x):
            return super().forward(x)
        if any(isinstance(module, FrozenLinear) for module in self):
            return run_integers(kernels, list(self), x)
        for stays, group in itertools.groupby(self, _stays_packed):
            modules = list(group)
            x = _run(kernels, modules, x) if stays else _one_by_one(modules, x)
        return x


def _stays_packed(module: nn.Module) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks
    if any(hooks) or module._backward_hooks or module._backward_pre_hooks:
        return False
    if type(module) in POINTWISE:  # a class made from one of these may do anything
        return True
    if type(module) is not BlockSparseLinear or not module.roles.is_plain:
        return False
    (rows, cols), (br, bc) = module.pattern.shape, module.block
    whole = br % 4 == 0 == bc % 4 and rows % br == 0 == cols % bc
    parts = (module.values, module.row_index, *([] if module.bias is None else [module.bias]))
    plain = all(t.is_cpu for t in parts) and module.values.dtype == torch.float32
    same = module.bias is None or module.bias.dtype == torch.float32
    return whole and plain and same and module.route == "kernels"


def _one_by_one(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x


def _run(kernels: call.Kernels, modules: list[nn.Module], x: Tensor) -> Tensor:
    """Run modules of which each may stay packed; a single sparse layer gains nothing from it."""
    where = [i for i, m in enumerate(modules) if isinstance(m, BlockSparseLinear)]
    if len(where) < 2 or not x.numel():
        return _one_by_one(modules, x)
    first, end = where[0], where[-1] + 1
    x = _one_by_one(modules[:first], x)
    y = _packed(kernels, modules[first:end], x.reshape(-1, x.shape[-1]))
    return _one_by_one(modules[end:], y.view(*x.shape[:-1], -1))


def _packed(kernels: call.Kernels, modules: list[nn.Module], x: Tensor) -> Tensor:
    batch = x.shape[0]
    slot = kernels.packed_slot(batch, torch.get_num_threads())
    at: Tensor = _Pack.apply(x, slot)
    n_feature = x.shape[1]
    for module in modules:
        if not isinstance(module, BlockSparseLinear):
            at = module(at)
            continue
        pattern = module.pattern
        sound = module.values.shape == (pattern.n_block, *pattern.block)
        if module.in_features != n_feature or not sound:
            module(x.new_empty(0, n_feature))  # says what is wrong
        at = _Matmul.apply(at, module.values, module.bias, pattern, batch, slot)
        n_feature = module.out_features
    out: Tensor = _Unpack.apply(at, batch, slot)
    return out


def _kernels() -> call.Kernels:
    found = call.kernels()
    assert found is not None
    return found


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slot: int) -> Tensor:
        ctx.how = x.shape[0], slot
        return packed.pack(_kernels(), x, slot).x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return packed.unpack(_kernels(), Packed(g, *ctx.how)), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, batch: int, slot: int) -> Tensor:
        ctx.slot = slot
        return packed.unpack(_kernels(), Packed(x, batch, slot))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return packed.pack(_kernels(), g, ctx.slot).x, None, None


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, pattern: BlockPattern, batch: int,
        slot: int,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, values)
        ctx.pattern, ctx.how = pattern, (batch, slot)
        index = pattern.row_ptr, pattern.col_index, pattern.grid[1]
        bias = None if bias is None else bias.contiguous()
        return packed.spmm_packed(_kernels(), Packed(x, batch, slot), values, *index, bias).x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, values = ctx.saved_tensors
        p = ctx.pattern
        tensors = p.row_ptr, p.row_index, p.col_index, p.col_ptr, p.row_index_t, p.order_t
        dx, dvalues, dbias = packed.backward_packed(
            _kernels(), dy, Packed(x, *ctx.how), values, tensors, ctx.needs_input_grad[0]
        )
        return dx, dvalues, dbias if ctx.needs_input_grad[2] else None, None, None, None
