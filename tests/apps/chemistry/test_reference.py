import numpy as np
import pytest

from apps.chemistry.calibration import COVERAGE, MIN_CALIBRATION, calibrate, fit_interval
from apps.chemistry.molecules import N_ATOM_FEATURE, mol_from_smiles
from apps.chemistry.reference import Reference


def test_errors_that_grow_with_distance_by_hand():
    distance = np.array([0.0, 0.25, 0.5, 0.75, 1.0] * 4)
    base, slope, factor = fit_interval(0.5 + 2.0 * distance, distance)
    # least squares through points on a line gives the line; every ratio is then 1
    assert (base, slope, factor) == pytest.approx((0.5, 2.0, 1.0), rel=1e-9)


def test_slope_is_never_negative_and_scale_never_zero():
    distance = np.linspace(0, 1, 20)
    base, slope, factor = fit_interval(1.0 - distance, distance)
    assert slope == 0.0
    assert base == pytest.approx(0.5)
    # errors 0, 1/19, ... 1 in units of .5; the ceil(21 * .8) = 17th smallest is 16/19 / .5
    assert factor == pytest.approx(16 / 19 / 0.5)
    base, _, _ = fit_interval(np.zeros(20), distance)
    assert base > 0


def test_four_in_five_new_errors_lie_inside():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        distance = rng.uniform(0, 1, 400)
        error = np.abs(rng.standard_normal(400)) * (0.3 + distance)
        base, slope, factor = fit_interval(error[:200], distance[:200])
        inside = error[200:] <= (base + slope * distance[200:]) * factor
        far = distance[200:] > 0.5
        covered.append([inside.mean(), inside[far].mean(), inside[~far].mean()])
    # one set of 200 has sd (.8 * .2 * 2 / 200)**.5 = .04, the mean of 200 sets .003; the line's
    # two parameters take about 2 / 200 off, and a line is not quite right in either half
    np.testing.assert_allclose(np.mean(covered, axis=0), COVERAGE, atol=0.02)


def chains(rng, n):
    """Chains with branches of carbon, nitrogen and oxygen, and a value that counts them."""
    smiles = ["".join(rng.choice(list("CNO"), size=rng.integers(4, 12))) for _ in range(n)]
    ring = rng.choice(["C1CCCCC1", "C1CCCC1", "c1ccccc1", "C1CCNCC1", "c1ccncc1"], size=n)
    y = np.array([0.3 * s.count("N") - 0.2 * s.count("O") for s in smiles])
    mols = [mol_from_smiles(r + s) for r, s in zip(ring, smiles, strict=True)]
    return mols, y + rng.normal(0, 0.1, n)


def test_intervals_widen_with_the_error_of_the_model():
    rng = np.random.default_rng(0)
    mols, y = chains(rng, 120)
    train, valid = slice(0, 80), slice(80, None)
    noise = rng.normal(size=40)
    widths = [
        calibrate(mols[train], y[train], mols[valid], y[valid], y[valid] + size * noise)
        for size in (0.1, 0.4)
    ]
    # the line comes from the stand-in, the factor is linear in the mean error of the model
    assert widths[0][:2] == pytest.approx(widths[1][:2])
    assert widths[1][2] / widths[0][2] == pytest.approx(4.0)


def test_too_few_values_for_an_interval():
    mols, y = chains(np.random.default_rng(0), 30)
    held = slice(0, MIN_CALIBRATION - 1)
    assert np.isnan(calibrate(mols, y, mols[held], y[held], y[held])).all()


def test_one_scaffold_still_gives_an_interval():
    mols = [mol_from_smiles("C" * n) for n in range(3, 23)]
    y = np.arange(20.0)
    assert np.isfinite(calibrate(mols, y, mols, y, y + 0.5)).all()


def test_interval_of_a_task_is_told_by_the_nearest_molecule_with_a_value_of_it():
    reference = Reference(
        smiles=["CCO", "CCN", "CCC"],
        target=np.array([[5, np.nan], [np.nan, 6], [np.nan, np.nan]], dtype=np.float32),
        interval=np.array([[0.5, 1.0, 1.0], [0.5, 2.0, 3.0]]),
        border=(0.0, 0.0),
        seen=np.zeros(N_ATOM_FEATURE, dtype=bool),
    )
    near = reference.nearest([mol_from_smiles(text) for text in ("CCO", "CCC")])
    assert near.row.tolist() == [0, 2]
    assert near.similarity.tolist() == [1.0, 1.0]
    assert near.own[0, 0] == 1.0
    # what only the other task, or none, has measured is no neighbour
    assert near.own[0, 1] < 1.0
    assert (near.own[1] < 1.0).all()
    half = reference.half_width(near.own)
    assert half[0, 0] == 0.5
    assert half[0, 1] == pytest.approx((0.5 + 2.0 * (1.0 - near.own[0, 1])) * 3.0)
