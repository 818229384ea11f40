import numpy as np
import pytest
import torch
from rdkit import Chem

import core
from apps.chemistry.molecules import N_ATOM_FEATURE, N_EDGE_FEATURE, featurise
from apps.chemistry.network import BindingNetwork, pack, pyg_data
from core.errors import ConfigError

# Another order of atoms changes the order of float32 sums only: some dozens of terms of order
# one, rounded to 2**-24, through four layers.
ORDER = 2e-5
SPECS = {
    "dense": core.LayerSpec(),
    "sparse": core.LayerSpec(density=0.25),
    "int8": core.LayerSpec(density=0.25, weight_format="int8"),
    "bf16": core.LayerSpec(weight_format="bf16", activation_format="bf16"),
}
DRUGS = [
    "CC(=O)Nc1ccc(O)cc1",
    "CN1CCC[C@H]1c1cccnc1",
    "CC(C)Cc1ccc([C@@H](C)C(=O)O)cc1",
    "C/C=C/C(=O)NCCc1c[nH]c2ccccc12",
    "O=C(O)c1ccccc1Nc1cccc(C(F)(F)F)c1",
    "CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc21",
    "COc1ccc2[nH]cc(CCNC(C)=O)c2c1",
    "CCN(CC)CCOC(=O)c1ccc(N)cc1",
    "CC(N)Cc1ccccc1",
    "NS(=O)(=O)c1ccc(Cl)cc1",
    "OC(=O)CCCc1ccccc1",
    "Clc1ccc(CN2CCNCC2)cc1",
    "CC#CCn1c(=O)c2c(nc1N)ncn2C",
    "O=c1[nH]cnc2nc[nH]c12",
    "CCOC(=O)C1=C(C)NC(C)=C(C(=O)OC)C1",
    "FC(F)(F)c1ccc(OCCN)cc1",
]


def make(spec="dense", n_task=1, d_hidden=32, n_layer=3, virtual_node=False):
    return BindingNetwork(
        N_ATOM_FEATURE,
        N_EDGE_FEATURE,
        n_task=n_task,
        d_hidden=d_hidden,
        n_layer=n_layer,
        virtual_node=virtual_node,
        spec=SPECS[spec],
        generator=torch.Generator().manual_seed(0),
    )


def warmed(spec="dense", n_task=1, **options):
    """A network in evaluation mode whose normalisations have seen molecules."""
    model = make(spec, n_task, **options)
    batch = pack([featurise(s) for s in DRUGS])
    with torch.no_grad():
        for _ in range(30):
            model(batch)
    return model.eval()


@pytest.mark.parametrize("spec", SPECS)
def test_prediction_does_not_depend_on_the_order_of_atoms(spec):
    model = warmed(spec)
    mixed = [
        featurise(Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 1, randomSeed=7)[0])
        for smiles in DRUGS
    ]
    graphs = [featurise(smiles) for smiles in DRUGS]
    pairs = zip(graphs, mixed, strict=True)
    assert sum((a.atom_features != b.atom_features).any() for a, b in pairs) > len(DRUGS) // 2
    # bf16 rounds sums that differ in the last float32 bit to neighbours 2**-8 apart
    tolerance = 0.05 if spec == "bf16" else ORDER
    with torch.no_grad():
        a, b = model(pack(graphs)), model(pack(mixed))
    assert a.std() > 0.01
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_mirror_images_differ():
    model = warmed()
    with torch.no_grad():
        out = model(pack([featurise("C[C@H](N)C(=O)O"), featurise("C[C@@H](N)C(=O)O")]))
    assert (out[0] - out[1]).abs().item() > 1e-3


def test_molecules_of_a_batch_do_not_see_each_other():
    model = warmed("sparse")
    graphs = [featurise(s) for s in DRUGS]
    with torch.no_grad():
        together = model(pack(graphs))
        alone = torch.cat([model(pack([g])) for g in graphs])
        backwards = model(pack(graphs[::-1])).flip(0)
    torch.testing.assert_close(together, alone, rtol=ORDER, atol=ORDER)
    torch.testing.assert_close(together, backwards, rtol=ORDER, atol=ORDER)


@pytest.mark.parametrize("virtual_node", [False, True])
def test_virtual_node_joins_ends_that_messages_do_not_reach(virtual_node):
    """Fluorine at the far end of a chain of 20, two rounds: only the node carries it across."""
    model = warmed(n_layer=2, virtual_node=virtual_node)
    states = []
    model.layers[-1].register_forward_hook(lambda *call: states.append(call[-1][-1]))
    with torch.no_grad():
        for smiles in ("C" * 20, "F" + "C" * 19):
            model(pack([featurise(smiles)]))
    far = (states[0] - states[1]).abs().max().item()
    assert (far > 1e-3) if virtual_node else (far == 0.0)


def test_virtual_nodes_of_a_batch_do_not_see_each_other():
    model = warmed(virtual_node=True)
    graphs = [featurise(s) for s in DRUGS]
    with torch.no_grad():
        together = model(pack(graphs))
        alone = torch.cat([model(pack([g])) for g in graphs])
    torch.testing.assert_close(together, alone, rtol=ORDER, atol=ORDER)


def test_a_batch_of_pyg_gives_the_same_answer():
    from torch_geometric.data import Batch

    model = warmed()
    graphs = [featurise(s) for s in DRUGS]
    with torch.no_grad():
        ours = model(pack(graphs))
        theirs = model(Batch.from_data_list([pyg_data(g) for g in graphs]))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_missing_values_have_no_part_in_loss_and_gradient():
    model = make(n_task=2)
    graphs = [featurise(s) for s in DRUGS[:4]]
    target = np.array([[1, 5], [2, np.nan], [3, 7], [np.nan, 9]], np.float32)
    model.set_scale(target)
    # by hand: mean over the six measured values of squared scaled errors
    batch = pack(graphs, target)
    scaled = (target - np.nanmean(target, 0)) / np.nanstd(target, 0)
    out = model(batch)
    expected = np.nanmean((out.detach().numpy() - scaled) ** 2)
    # float32 sums of six terms of order one
    assert model.loss(batch).item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(model.loss(batch), model.out.bias)
    assert torch.isfinite(gradient).all()
    nothing = pack(graphs, np.full((4, 2), np.nan, np.float32))
    assert model.loss(nothing).item() == 0.0


def test_predict_is_in_the_unit_of_the_data():
    model = warmed()
    batch = pack([featurise(s) for s in DRUGS])
    with torch.no_grad():
        scaled = model(batch)
        model.set_scale(np.array([[4.0], [8.0], [np.nan]], np.float32))
        torch.testing.assert_close(model.predict(batch), scaled * 2.0 + 6.0, rtol=1e-6, atol=1e-6)


def test_set_scale_refuses_a_task_without_values_and_survives_a_constant_one():
    model = make(n_task=2)
    with pytest.raises(ConfigError, match="task 1 has no value in the training part"):
        model.set_scale(np.array([[1.0, np.nan], [2.0, np.nan]], np.float32))
    model.set_scale(np.array([[1.0, 3.0], [2.0, 3.0]], np.float32))
    assert model.target_sd.tolist() == [0.5, 1.0]


def test_width_must_fit_the_blocks():
    with pytest.raises(ConfigError, match="multiple of the block side 16, got 40; try 48"):
        make("sparse", d_hidden=40)


@pytest.mark.parametrize("spec", SPECS)
def test_overfits_sixteen_molecules(spec):
    """A network that cannot learn sixteen values by heart has a broken gradient somewhere."""
    model = make(spec, d_hidden=64)
    target = np.random.default_rng(1).normal(size=(16, 1)).astype(np.float32)
    batch = pack([featurise(s) for s in DRUGS], target)
    model.set_scale(target)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = model.loss(batch).item()
    for _ in range(120):
        optimizer.zero_grad()
        loss = model.loss(batch)
        loss.backward()
        optimizer.step()
    assert first > 0.5
    assert loss.item() < 0.02


def test_same_seed_same_bits():
    a, b = make("sparse").state_dict(), make("sparse").state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_bound_costs_nothing_on_its_right_side():
    graphs = [featurise(s) for s in ("CCO", "CCN", "CCC")]
    net = BindingNetwork(
        N_ATOM_FEATURE,
        N_EDGE_FEATURE,
        d_hidden=16,
        n_layer=1,
        spec=core.LayerSpec(),
        generator=torch.Generator().manual_seed(0),
    ).eval()
    with torch.no_grad():
        value = net.predict(pack(graphs)).numpy()
        target = value + np.float32([[2.0], [2.0], [-3.0]])  # first two are predicted too low
        bound = np.int8([[0], [-1], [-1]])
        # exact: 2^2; below y, as it must be: 0; above y by 3: 3^2
        loss = float(net.loss(pack(graphs, target, bound)))
        assert loss == pytest.approx((4.0 + 0.0 + 9.0) / 3, rel=1e-5)  # sums of float32
        loss = float(net.loss(pack(graphs, target, -bound)))
        assert loss == pytest.approx((4.0 + 4.0 + 0.0) / 3, rel=1e-5)
