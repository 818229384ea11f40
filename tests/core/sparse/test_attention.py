"""Block-sparse attention against dense masked attention in float64."""

import copy

import pytest
import torch
from torch._subclasses import FakeTensorMode

from core.errors import ConfigError, ShapeError
from core.sparse import BlockPattern, LayerSpec, freeze
from core.sparse.attention import BlockSparseAttention, block_sparse_attention
from core.sparse.topology import attention_blocks


def dense_attention(q, k, v, mask):
    """Row by row, over the keys that the mask leaves."""
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=torch.float64)
    for i in range(q.shape[-2]):
        seen = mask[i].nonzero().flatten()
        if len(seen):
            score = q[..., i : i + 1, :].double() @ k[..., seen, :].double().transpose(-1, -2)
            out[..., i : i + 1, :] = (score / q.shape[-1] ** 0.5).softmax(-1) @ v[
                ..., seen, :
            ].double()
    return out


def operands(lead, n_query, n_key, d, d_value, dtype, generator):
    shapes = (*lead, n_query, d), (*lead, n_key, d), (*lead, n_key, d_value)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


# Unit error of a held score, weight or result, and of an addition.
UNIT_ERROR = {
    torch.float64: (2.0**-53, 2.0**-53),
    torch.float32: (2.0**-24, 2.0**-24),
    torch.bfloat16: (2.0**-8, 2.0**-24),
}


@pytest.mark.parametrize("dtype", UNIT_ERROR, ids=str)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("block", [(1, 1), (4, 4), (8, 2)], ids=str)
def test_equals_dense_masked_attention(block, is_causal, dtype):
    g = torch.Generator().manual_seed(1)
    for n_query, n_key, lead in [(16, 16, (2, 3)), (13, 19, (2,)), (5, 7, ())]:
        for density in (0.3, 1.0):
            pattern = BlockPattern.random((n_query, n_key), block, density, g)
            mask = pattern.mask()
            if is_causal:
                mask = mask & torch.ones_like(mask).tril()
            q, k, v = operands(lead, n_query, n_key, 6, 5, dtype, g)
            got = block_sparse_attention(q, k, v, pattern, is_causal=is_causal)
            assert got.dtype == dtype
            want = dense_attention(q, k, v, mask)
            # An absolute error of a score is a relative one of its exponential and of the sum of
            # those; then come the weight, the mean and the result.
            top = q.double().norm(dim=-1).max() * k.double().norm(dim=-1).max() / 6**0.5
            held, added = UNIT_ERROR[dtype]
            steps = held * (2 * top + 4) + added * (2 * top * 8 + 2 * n_key + 8)
            allowed = steps * v.double().abs().max()
            error = (got.double() - want).abs()
            assert (error <= allowed).all(), error.max()


@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients(is_causal):
    g = torch.Generator().manual_seed(2)
    pattern = BlockPattern.random((7, 5), (2, 2), 0.5, g)
    parts = [x.requires_grad_() for x in operands((2,), 7, 5, 3, 2, torch.float64, g)]
    assert torch.autograd.gradcheck(
        lambda q, k, v: block_sparse_attention(q, k, v, pattern, is_causal=is_causal), parts
    )


def test_gradients_equal_those_of_dense_attention():
    g = torch.Generator().manual_seed(3)
    pattern = attention_blocks(20, 4, window=4, n_global=2)
    a = [x.requires_grad_() for x in operands((2, 2), 20, 20, 8, 8, torch.float64, g)]
    b = [x.detach().clone().requires_grad_() for x in a]
    dy = torch.randn(2, 2, 20, 8, dtype=torch.float64, generator=g)
    block_sparse_attention(*a, pattern).backward(dy)
    torch.nn.functional.scaled_dot_product_attention(*b, attn_mask=pattern.mask()).backward(dy)
    for x, y in zip(a, b, strict=True):
        assert torch.allclose(x.grad, y.grad, rtol=1e-12, atol=1e-13)


def test_large_scores_and_bad_entries():
    pattern = BlockPattern.dense((4, 4), (2, 2))
    q = torch.full((4, 1), 1e4)
    k = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    v = torch.eye(4)
    assert torch.equal(block_sparse_attention(q, k, v, pattern), v[3].expand(4, 4))
    q[1] = torch.nan
    got = block_sparse_attention(q, k, v, pattern)
    assert got[1].isnan().all()
    assert torch.equal(got[[0, 2, 3]], v[3].expand(3, 4))


def test_module_mixes_heads_as_torch_does():
    g = torch.Generator().manual_seed(4)
    layer = BlockSparseAttention(
        12, 3, pattern=attention_blocks(10, 4, window=3), is_causal=True, generator=g
    ).double()
    x = torch.randn(2, 10, 12, dtype=torch.float64, generator=g)
    mask = layer.pattern.mask() & torch.ones(10, 10, dtype=torch.bool).tril()
    parts = (layer.query, layer.key, layer.value)
    want, _ = torch.nn.functional.multi_head_attention_forward(
        *(x.transpose(0, 1),) * 3, 12, 3,
        torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]),
        None, None, False, 0.0, layer.out.weight, layer.out.bias,
        attn_mask=~mask, need_weights=False,
    )  # fmt: skip
    assert torch.allclose(layer(x), want.transpose(0, 1), rtol=1e-12, atol=1e-14)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_module_with_sparse_projections_trains_freezes_and_traces():
    g = torch.Generator().manual_seed(5)
    layer = BlockSparseAttention(
        16,
        2,
        pattern=attention_blocks(12, 4, window=2),
        spec=LayerSpec(0.5, 4, "int8"),
        generator=g,
    )
    x = torch.randn(3, 12, 16, generator=g)
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert torch.equal(freeze(layer)(x), layer(x))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert layer(torch.empty(3, 12, 16)).shape == (3, 12, 16)


def test_clear_errors():
    pattern = BlockPattern.dense((4, 6), (2, 2))
    q, k, v = torch.ones(2, 4, 3), torch.ones(2, 6, 3), torch.ones(2, 6, 3)
    with pytest.raises(ShapeError, match=r"key must have shape \[2, 6, 3\], got \[2, 5, 3\]; the"):
        block_sparse_attention(q, k[:, :5], v, pattern)
    with pytest.raises(ShapeError, match=r"query must have shape \[2, 4, 3\], got \[2, 6, 3\]"):
        block_sparse_attention(k, k, v, pattern)
    g = torch.Generator()
    with pytest.raises(ConfigError, match=r"n_head must divide d_model = 8, got 3"):
        BlockSparseAttention(8, 3, pattern=pattern, generator=g)
    layer = BlockSparseAttention(8, 2, pattern=BlockPattern.dense((4, 4), (2, 2)), generator=g)
    with pytest.raises(ShapeError, match=r"\[batch, 4, 8\], got \[1, 5, 8\]; the pattern fixes"):
        layer(torch.ones(1, 5, 8))
