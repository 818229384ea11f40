"""Kernels on pairs against dense float64 solutions and counts by hand."""

import numpy as np
import pytest

from apps.chemistry.affinity import kernels
from apps.chemistry.affinity.kernels import (
    NOISE,
    PairKernel,
    Spectrum,
    sequence_kernel,
    solve_pairs,
)

N_DRUG, N_TARGET = 7, 9
# Float32 conjugate gradients stopped at 1e-5 of the first residual; values are of order one and
# the condition number is some hundreds.
SOLVED = 2e-3


def random_kernel(n: int, rng: np.random.Generator) -> np.ndarray:
    root = rng.normal(size=(n, n + 3))
    product = root @ root.T
    norm = np.sqrt(np.diag(product))
    return product / np.outer(norm, norm)


@pytest.fixture
def grid():
    rng = np.random.default_rng(0)
    value = rng.normal(6.0, 1.0, size=(N_DRUG, N_TARGET))
    train = rng.random(value.shape) < 0.7
    return random_kernel(N_DRUG, rng), random_kernel(N_TARGET, rng), value, train


def test_solution_is_that_of_the_dense_system(grid, monkeypatch):
    monkeypatch.setattr(kernels, "_TOLERANCE", 1e-5)
    drug, target, value, train = grid
    covariance = np.kron(drug, target)
    known = np.flatnonzero(train)
    mean = value[train].mean()
    inner = covariance[np.ix_(known, known)] + NOISE * np.eye(known.size)
    weight = np.linalg.solve(inner, value.ravel()[known] - mean)
    expected = mean + (covariance[:, known] @ weight).reshape(value.shape)
    found = solve_pairs(Spectrum.of(drug), Spectrum.of(target), value, train, NOISE)
    assert np.abs(found - expected).max() < SOLVED


@pytest.mark.parametrize("method", ["ridge", "profiles"])
def test_held_values_are_not_read(grid, method):
    drug, target, value, train = grid
    kernel = PairKernel(drug, target)
    hidden = np.where(train, value, np.nan)
    assert np.array_equal(
        getattr(kernel, method)(hidden, train), getattr(kernel, method)(value, train)
    )


def test_profiles_find_proteins_that_bind_alike():
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 20))  # structure tells nothing
    value = 6.0 + factor
    train = rng.random(value.shape) < 0.7
    kernel = PairKernel(np.eye(30), np.eye(20))
    error = {
        name: float(np.mean((getattr(kernel, name)(value, train) - value)[~train] ** 2))
        for name in ("ridge", "profiles")
    }
    # main effects leave the product of factors; its variance is 2, profiles explain most of it
    assert error["profiles"] < 0.5 * error["ridge"]


def test_words_of_residues_by_hand():
    # AAC has the words AA, AC; ACC has AC, CC: one of two is shared, so the cosine is 1/2
    kernel = sequence_kernel(["AAC", "ACC", "MMM"], k=2, reduced=False)
    assert kernel == pytest.approx(np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]))


def test_reduced_words_survive_conservative_mutations():
    plain = sequence_kernel(["IKD", "VRE"], k=3, reduced=False)
    reduced = sequence_kernel(["IKD", "VRE"], k=3)
    assert (plain[0, 1], reduced[0, 1]) == (0.0, 1.0)


def test_a_sequence_shorter_than_a_word_is_alone():
    assert np.array_equal(sequence_kernel(["AC", "ACDEFGH"], k=6), np.eye(2))
