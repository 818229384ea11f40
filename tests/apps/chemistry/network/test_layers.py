import numpy as np
import pytest
import torch

import core
from apps.chemistry.molecules import N_ATOM_FEATURE, N_EDGE_FEATURE, featurise
from apps.chemistry.network import EdgeMessageLayer, Readout, pack

D = 32
# Sums of a few hundred float32 products, each rounded to 2**-24, on values of order one to ten.
FLOAT32 = 2e-5


def make(spec=None):
    generator = torch.Generator().manual_seed(3)
    layer = EdgeMessageLayer(D, N_EDGE_FEATURE, spec=spec or core.LayerSpec(), generator=generator)
    for norm in (layer.first_norm, layer.second_norm):
        norm.running_mean.copy_(torch.randn(D, generator=generator))
        norm.running_var.copy_(torch.rand(D, generator=generator) + 0.5)
    return layer.eval()


def order_of(batch):
    return core.EdgeOrder.from_index(batch.edge_index, len(batch.x))


def weight(linear, n_in):
    """The matrix of any layer [out, in], read off its action on unit vectors."""
    return linear(torch.eye(n_in)).detach().double().numpy().T


def norm64(norm, z):
    mean, var = (t.double().numpy() for t in (norm.running_mean, norm.running_var))
    scale, shift = (p.detach().double().numpy() for p in (norm.weight, norm.bias))
    return (z - mean) / np.sqrt(var + norm.eps) * scale + shift


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_layer_equals_a_loop_over_edges_in_float64(density):
    layer = make(core.LayerSpec(density=density, block=16))
    batch = pack([featurise("CC(=O)Nc1ccccc1"), featurise("C[C@H](N)C#N")])
    h = torch.randn(len(batch.x), D, generator=torch.Generator().manual_seed(0))
    edge, first, second = (
        weight(layer.edge, N_EDGE_FEATURE),
        weight(layer.first, D),
        weight(layer.second, D),
    )
    state = h.double().numpy()
    z = state.copy()
    for e in range(batch.edge_index.shape[1]):
        source, target = batch.edge_index[:, e].tolist()
        z[target] += np.maximum(state[source] + edge @ batch.edge_attr[e].double().numpy(), 0)
    z = np.maximum(norm64(layer.first_norm, z @ first.T), 0)
    expected = state + norm64(layer.second_norm, z @ second.T)
    out = layer(h, order_of(batch), batch.edge_attr).detach().double().numpy()
    np.testing.assert_allclose(out, expected, rtol=FLOAT32, atol=FLOAT32)


def test_one_layer_reaches_the_neighbours_and_no_further():
    layer = make()
    batch = pack([featurise("CCCCC")])
    h = torch.zeros(5, D, requires_grad=True)
    out = layer(h, order_of(batch), batch.edge_attr)
    (gradient,) = torch.autograd.grad(out[2].sum(), h)
    assert (gradient.abs().sum(1) > 0).tolist() == [False, True, True, True, False]


def test_readout_counts_what_the_detectors_find_in_each_molecule():
    batch = pack([featurise("CCO"), featurise("C"), featurise("CC")])
    states = [torch.arange(12.0).reshape(6, 2), -torch.ones(6, 2)]
    readout = Readout(
        2, n_state=2, d_count=2, spec=core.LayerSpec(), generator=torch.Generator().manual_seed(0)
    ).eval()
    readout.norm.eps = 0.0
    with torch.no_grad():
        for detect in readout.detect:  # the state itself, and what is left of it above 5
            detect.weight.copy_(torch.eye(2))
            detect.bias.copy_(torch.tensor([0.0, -5.0]))
    # atoms 0..2, 3 and 4..5 hold (0, 1), (2, 3), (4, 5) | (6, 7) | (8, 9), (10, 11); the second
    # state is negative throughout and found by no detector
    count = torch.tensor([[6.0, 0.0, 0, 0], [6.0, 2.0, 0, 0], [18.0, 10.0, 0, 0]])
    n_atom = torch.tensor([[3.0], [1.0], [2.0]])
    found = readout.count(states, batch.batch, batch.ptr)
    torch.testing.assert_close(found, count, rtol=0, atol=0)
    out = readout(found, batch.ptr)
    expected = torch.cat([torch.log1p(count), count / n_atom], 1)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=0)  # a few float32 roundings


def test_widths_are_those_of_the_featuriser():
    batch = pack([featurise("CCO")])
    assert batch.x.shape[1] == N_ATOM_FEATURE
    assert batch.edge_attr.shape[1] == N_EDGE_FEATURE
