"""Frozen int8 layers in a row: between two of them activations are codes, a byte each.

A layer by itself reads and writes float32, which at 90 % zeros takes as long as its products. In a
row, a tile of samples passes through all layers while it lies in the cache, and each layer rounds
its outputs to the codes that the next one would make of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.kernels import call
from core.kernels.call import IntegerLayer
from core.sparse.integer import MAX_COLUMN
from core.sparse.linear import FrozenLinear

#: Block columns that the kernel knows; block rows come in sixteens.
_BLOCK_COLUMNS = (8, 16, 32)


def run_integers(kernels: call.Kernels, modules: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Give what `modules` give one after the other, float32 [..., features]; for inference.

    Two or more int8 layers in a row, with nothing but ReLU between them, run as one.
    """
    done = 0
    while done < len(modules):
        layers, n_module = _stack(modules[done:]) if _takes(kernels, x) else ([], 0)
        if len(layers) < 2 or layers[0].cols != x.shape[-1]:
            x = modules[done](x)
            done += 1
        else:
            y = call.stack_int8(kernels, x.reshape(-1, x.shape[-1]), layers)
            x = y.view(*x.shape[:-1], y.shape[-1])
            done += n_module
    return x


def _takes(kernels: call.Kernels, x: Tensor) -> bool:
    is_taught = torch.is_grad_enabled() and x.requires_grad
    return bool(kernels.has_int8()) and x.dtype == torch.float32 and x.numel() > 0 and not is_taught


def _stack(modules: Sequence[nn.Module]) -> tuple[list[IntegerLayer], int]:
    """Return the layers that `modules` begin with, and how many modules these are."""
    layers: list[IntegerLayer] = []
    n_module = 0
    while n_module < len(modules):
        layer = _layer(modules[n_module])
        if layer is None or (layers and layer.cols != layers[-1].rows):
            break
        n_module += 1
        while n_module < len(modules) and _follows(modules[n_module]):
            layer = layer._replace(is_relu=layer.is_relu or type(modules[n_module]) is nn.ReLU)
            n_module += 1
        layers.append(layer)
    return layers, n_module


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _follows(module: nn.Module) -> bool:
    is_nothing = type(module) is nn.Identity or (type(module) is nn.Dropout and not module.training)
    return (type(module) is nn.ReLU or is_nothing) and not _has_hooks(module)


def _layer(module: nn.Module) -> IntegerLayer | None:
    """Return what the kernel needs of a module, or None if it is no layer for it."""
    if type(module) is not FrozenLinear or _has_hooks(module):
        return None
    pattern, running, scale = module.pattern, module.activation_range, module.scale
    names = module.roles.weight.name, module.roles.activation.name
    if pattern is None or running is None or scale is None or names != ("int8", "int8"):
        return None
    (rows, cols), (br, bc) = pattern.shape, pattern.block
    fits = br % 16 == 0 and bc in _BLOCK_COLUMNS and rows % br == 0 == cols % bc
    if not fits or cols > MAX_COLUMN or not running.is_known:
        return None
    tensors = [module.codes, scale, pattern.row_ptr, pattern.col_index, running.top]
    tensors += [] if module.bias is None else [module.bias]
    dtypes = {scale.dtype, running.top.dtype} | {t.dtype for t in tensors[5:]}
    if not all(t.is_cpu for t in tensors) or dtypes != {torch.float32}:
        return None
    x_scale = running.scale_for(scale)
    index = pattern.row_ptr, pattern.col_index
    return IntegerLayer(module.codes, scale, x_scale, *index, module.bias, rows, cols, False)
