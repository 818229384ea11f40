import pytest
import torch

from apps.chemistry.datasets import load_table
from apps.chemistry.molecules import N_ATOM_FEATURE, N_EDGE_FEATURE
from apps.chemistry.network import BindingNetwork, pack, products
from apps.chemistry.network.products import ROW_STEP
from apps.chemistry.predictor import freeze
from apps.lab.variant import Variant

# Float32 sums of some hundred terms, through twelve products, on answers of order one.
ATOL = 1e-5


def network(variant):
    model = BindingNetwork(
        N_ATOM_FEATURE, N_EDGE_FEATURE, n_task=2, d_hidden=32, n_layer=2, virtual_node=True,
        spec=variant.layer_spec(), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    batch = pack(load_table("pocket").graphs[:16])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
            torch.nn.init.uniform_(module.bias, -1.0, 1.0)
    with torch.no_grad():
        for _ in range(20):  # running averages unlike those at the start
            model(batch)
    return freeze(model), batch


@pytest.mark.parametrize("has_onednn", [True, False])
@pytest.mark.parametrize(
    "variant",
    [Variant(), Variant(density=0.5, block=16), Variant(weight_format="int8")],
    ids=["dense", "sparse", "int8"],
)
def test_says_what_the_network_says(monkeypatch, variant, has_onednn):
    if not has_onednn:
        monkeypatch.setattr(products, "_BY_ONEDNN", None)
    model, batch = network(variant)
    with torch.no_grad():
        expected = model(batch)
        found = model.deploy()(batch)
    torch.testing.assert_close(found, expected, atol=ATOL, rtol=0)
    norms = [m for m in model.layers.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert bool(norms) == (variant != Variant())


def test_batches_share_shapes(monkeypatch):
    # oneDNN keeps what it compiled of each shape: a file of any length must not have as many
    model, _ = network(Variant())
    model, rows = model.deploy(), set()
    monkeypatch.setattr(
        products,
        "_BY_ONEDNN",
        lambda x, w, b, *_: rows.add(len(x)) or torch.nn.functional.linear(x, w, b),
    )
    graphs = load_table("pocket").graphs
    with torch.no_grad():
        for n in range(5, 25):
            model(pack(graphs[:n]))
    assert max(rows) >= ROW_STEP  # of atoms; the last layers have a row per molecule
    assert all(n % ROW_STEP == 0 or n.bit_count() == 1 for n in rows)
