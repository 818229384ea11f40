"""Sparse layers on a CUDA device: the torch route there against the kernels of the CPU."""

import copy

import pytest
import torch

import core

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.6])
def test_a_layer_gives_the_same_on_a_gpu(block, density):
    g = torch.Generator().manual_seed(1)
    here = core.build_linear(200, 144, core.LayerSpec(density, block), generator=g)
    there = copy.deepcopy(here).cuda()
    x = torch.randn(70, 200, generator=g).requires_grad_()
    y = here(x)
    want = [y, *torch.autograd.grad(y.square().sum(), [x, *here.parameters()])]
    x_there = x.detach().cuda().requires_grad_()
    y = there(x_there)
    got = [y, *torch.autograd.grad(y.square().sum(), [x_there, *there.parameters()])]
    for a, b in zip(got, want, strict=True):
        # Two orders of at most 200 float32 products, twice in a row for gradients.
        assert (a.cpu() - b).abs().max() <= 4 * 200 * 2.0**-24 * b.abs().max()


def test_messages_and_segment_sums_give_the_same_on_a_gpu():
    g = torch.Generator().manual_seed(2)
    index = torch.randint(0, 30, (400,), generator=g).sort().values
    x = torch.randn(400, 40, generator=g)
    want = core.segment_sum(x, index, 30)
    got = core.segment_sum(x.cuda(), index.cuda(), 30).cpu()
    assert (got - want).abs().max() <= 2 * 400 * 2.0**-24 * want.abs().max()
    ends = torch.randint(0, 30, (2, 90), generator=g)
    atoms = torch.randn(30, 40, generator=g)
    want = core.pass_messages(atoms, core.EdgeOrder.from_index(ends, 30))
    order = core.EdgeOrder.from_index(ends.cuda(), 30)
    got = core.pass_messages(atoms.cuda(), order).cpu()
    assert (got - want).abs().max() <= 2 * 90 * 2.0**-24 * want.abs().max()
