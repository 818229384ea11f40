"""Views (free), copies, layout changes and fills."""

from __future__ import annotations

from hw.program import Op
from hw.rules.registry import rule
from hw.work import Move, Pointwise, Work


@rule(
    """aten.t aten.view aten._unsafe_view aten.detach aten.alias aten.expand aten.permute
    aten.transpose aten.unsqueeze aten.squeeze aten.select aten.slice aten.split
    aten.split_with_sizes aten.unsafe_split aten.unsafe_split_with_sizes aten.unbind
    aten.as_strided aten.diagonal aten.unfold aten.lift_fresh aten.view_as_real
    aten.view_as_complex aten.real aten.imag aten._conj aten._neg_view aten._reshape_alias
    aten.movedim aten.narrow aten.chunk aten.reshape aten.empty aten.empty_like aten.new_empty
    aten.empty_strided aten.new_empty_strided aten.empty_permuted aten.set aten.resize
    aten.scalar_tensor aten.record_stream aten.requires_grad aten.values aten.crow_indices
    aten.col_indices aten.ccol_indices aten.row_indices aten._sparse_compressed_tensor_unsafe
    aten.sparse_compressed_tensor aten._values aten._indices aten._assert_async
    aten._assert_scalar aten._validate_sparse_compressed_tensor_args"""
)
def _view(op: Op) -> list[Work]:
    return []


@rule(
    """aten.zeros aten.ones aten.full aten.zeros_like aten.ones_like aten.full_like
    aten.new_zeros aten.new_ones aten.new_full aten.fill aten.zero aten.arange aten.linspace
    aten.eye"""
)
def _fill(op: Op) -> list[Work]:
    return [Move(op.out.byte, "fill")] if op.outputs and op.out.byte else []


@rule("aten.clone", "aten.copy", "aten._to_dense", "aten.contiguous", "aten.resolve_conj")
def _copy(op: Op) -> list[Work]:
    source = op.tensor("src") if "src" in op.args else op.inputs[0]
    if op.out.byte == 0:
        return []
    if source.format != op.out.format:
        return [Pointwise(op.out.n_element, "arithmetic", source.format, op.out.format)]
    kind = "copy" if source.is_contiguous == op.out.is_contiguous else "rearrange"
    return [Move(op.out.byte, kind)]  # type: ignore[arg-type]


@rule("aten.cat", "aten.stack", "aten.repeat", "aten.constant_pad_nd", "aten.pixel_shuffle")
def _assemble(op: Op) -> list[Work]:
    return [Move(op.out.byte, "copy")] if op.out.byte else []


@rule("aten.flip", "aten.roll", "aten.rot90", "aten.reflection_pad2d", "aten.replication_pad2d")
def _rearrange(op: Op) -> list[Work]:
    return [Move(op.out.byte, "rearrange")]


@rule(
    """aten.select_backward aten.slice_backward aten.diagonal_backward aten.unfold_backward
    aten.slice_scatter aten.select_scatter"""
)
def _embed(op: Op) -> list[Work]:
    """Fill with zeros, then write the part."""
    source = op.inputs[0]
    return [Move(op.out.byte, "fill"), Move(source.byte, "copy")]
