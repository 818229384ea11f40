"""Codes with one scale for each block of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from core.checks import check_shape
from core.errors import ShapeError
from core.precision.formats import Format
from core.precision.quantize import quantize


def quantize_blocks(
    x: Tensor, format: Format | str, block: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return codes and block scales with codes * scale close to `x`.

    Parameters
    ----------
    x : Tensor, float [rows, cols]
    format : Format or str
        Of 8 bits or fewer.
    block : tuple of int
        Rows and columns that share a scale; edge blocks may be cut short. (1, 32) gives the
        blocks of the microscaling formats, with scales that are not powers of two.

    Returns
    -------
    codes : Tensor, storage dtype of the format [rows, cols]
    scale : Tensor, dtype of `x` [row blocks, column blocks]

    Raises
    ------
    ShapeError
        If `x` is no matrix or a block size is not positive.
    FormatError
        If the format is unknown or wider than 8 bits.

    Examples
    --------
    >>> import torch
    >>> from core.precision import dequantize_blocks, quantize_blocks
    >>> x = torch.tensor([[1.0, 2.0, 100.0, 200.0]])
    >>> codes, scale = quantize_blocks(x, "int8", (1, 2))
    >>> codes.tolist(), dequantize_blocks(codes, scale, (1, 2)).tolist()
    ([[64, 127, 64, 127]], [[1.0078740119934082, 2.0, 100.78739929199219, 200.0]])
    """
    check_shape("quantize_blocks", "x", x, (None, None), "flatten other axes into rows")
    if min(block) < 1:
        raise ShapeError(f"quantize_blocks: block must be two positive sizes, got {block}")
    (rows, cols), (br, bc) = x.shape, block
    n_row, n_col = -(-rows // br), -(-cols // bc)
    padded = torch.nn.functional.pad(x, (0, n_col * bc - cols, 0, n_row * br - rows))
    blocks = padded.view(n_row, br, n_col, bc).transpose(1, 2).reshape(n_row * n_col, br * bc)
    codes, scale = quantize(blocks, format, axis=0)
    codes = codes.view(n_row, n_col, br, bc).transpose(1, 2).reshape(n_row * br, n_col * bc)
    return codes[:rows, :cols], scale.view(n_row, n_col)


def dequantize_blocks(codes: Tensor, scale: Tensor, block: tuple[int, int]) -> Tensor:
    """Return codes * scale, dtype of `scale` [rows, cols]; the inverse of `quantize_blocks`.

    Examples
    --------
    >>> import torch
    >>> from core.precision import dequantize_blocks
    >>> codes = torch.tensor([[1, 2, 3, 4]], dtype=torch.int8)
    >>> dequantize_blocks(codes, torch.tensor([[0.5, 10.0]]), (1, 2))
    tensor([[ 0.5000,  1.0000, 30.0000, 40.0000]])
    """
    (rows, cols), (br, bc) = codes.shape, block
    check_shape(
        "dequantize_blocks", "scale", scale, (-(-rows // br), -(-cols // bc)), "one scale a block"
    )
    full = scale.repeat_interleave(br, 0).repeat_interleave(bc, 1)[:rows, :cols]
    return torch.ops.core.dequantize(codes, full, scale.dtype)
