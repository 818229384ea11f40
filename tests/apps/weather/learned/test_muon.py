import torch
from torch import nn

from apps.weather.learned.muon import Muon, orthogonalised
from core import BlockPattern, BlockSparseLinear, DenseLinear

# The source's five rounds leave singular values between these (its figure 1), small ones below.
LEAST, MOST = 0.6, 1.25


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_singular_values_come_out_near_one_and_vectors_stay():
    for shape in ((24, 40), (40, 24), (32, 32)):
        x = random(*shape)
        u, s, v = torch.linalg.svd(x, full_matrices=False)
        out = orthogonalised(x)
        own = torch.diagonal(u.T @ out @ v.T)
        large = s > 0.05 * s[0]
        assert own[large].min() > LEAST
        assert own.max() < MOST
        assert torch.allclose(u.T @ out @ v.T, torch.diag(own), atol=1e-4)


def test_a_whole_pattern_moves_as_the_dense_matrix_does():
    """A block-sparse layer with all its blocks is that matrix: the same steps, to rounding."""
    generator = torch.Generator().manual_seed(1)
    dense = DenseLinear(32, 48, generator=generator)
    pattern = BlockPattern.dense((48, 32), (16, 16))
    sparse = BlockSparseLinear(32, 48, pattern=pattern, generator=generator)
    with torch.no_grad():
        sparse.values.copy_(dense.weight.view(3, 16, 2, 16).transpose(1, 2).reshape(6, 16, 16))
        sparse.bias.copy_(dense.bias)
    x, y = random(64, 32, seed=2), random(64, 48, seed=3)
    for layer in (dense, sparse):
        optimizer = Muon(layer, 0.02)
        for _ in range(3):
            optimizer.zero_grad()
            (layer(x) - y).square().mean().backward()
            optimizer.step()
    probe = random(8, 32, seed=4)
    assert torch.allclose(dense(probe), sparse(probe), atol=1e-4)


def test_state_goes_on_where_it_stopped():
    def run(n, state=None):
        layer = nn.Linear(4, 3)
        nn.init.constant_(layer.weight, 0.1)
        nn.init.zeros_(layer.bias)
        optimizer = Muon(layer, 0.05)
        if state:
            layer.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
        for _ in range(n):
            optimizer.zero_grad()
            (layer(random(5, 4)) - 1.0).square().sum().backward()
            optimizer.step()
        return layer.state_dict(), optimizer.state_dict()

    whole, half = run(6)[0], run(3, run(3))[0]
    assert torch.equal(whole["weight"], half["weight"])
    assert torch.equal(whole["bias"], half["bias"])
