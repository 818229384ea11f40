import numpy as np
import pytest
import torch

from apps.chemistry import minmax
from apps.chemistry.minmax import min_max
from core.kernels import load

FLOAT32 = 1e-6  # sums of at most 40 counts of order one, relative to their total


def test_by_hand():
    a = np.array([[2, 0, 1, 1], [0, 0, 0, 0]], dtype=np.float32)
    b = np.array([[1, 1, 1, 1], [0, 0, 0, 3]], dtype=np.float32)
    # parts of two counts each: min sums 1 and 2 over max sums 3 and 2; 0 / 2 and 1 / 4;
    # a part that counts nothing is like another such (the fourth pair's first part)
    expected = [[(1 / 3 + 1) / 2, (0 + 1 / 4) / 2], [0, (1 + 0) / 2]]
    np.testing.assert_allclose(min_max(a, b, 2), expected, atol=FLOAT32)


def reference(a, b, n_part):
    out = np.zeros((len(a), len(b)))
    for x, y in zip(np.split(a.astype(float), n_part, 1), np.split(b.astype(float), n_part, 1),
                    strict=True):  # fmt: skip
        least = np.minimum(x[:, None], y[None]).sum(axis=2)
        most = np.maximum(x[:, None], y[None]).sum(axis=2)
        out += np.where(most > 0, least / np.where(most > 0, most, 1), 1.0)
    return out / n_part


@pytest.mark.parametrize("level", [None, *load.LEVELS])
@pytest.mark.parametrize("n_thread", [1, 2])
@pytest.mark.parametrize("n_count", [1, 7, 16, 35])  # less than a vector, whole ones, and a rest
def test_is_that_of_a_loop_in_float64(monkeypatch, level, n_thread, n_count):
    try:
        monkeypatch.setenv("TESSERA_KERNELS", level or "torch")
        load.chosen_level()
    except Exception:
        pytest.skip(f"this processor has no {level}")
    minmax._library.cache_clear()
    if level and load.library() is None:
        pytest.skip("no compiler")
    assert (minmax._library() is None) == (level is None)
    rng = np.random.default_rng(n_count)
    a, b = (rng.gamma(1.0, size=(n, 3 * n_count)) * (rng.random((n, 3 * n_count)) < 0.5)
            for n in (70, 9))  # fmt: skip
    a, b = (x.astype(np.float32) for x in (a, b))
    b[:2], a[1, :n_count] = a[:2], 0.0
    before = torch.get_num_threads()
    torch.set_num_threads(n_thread)
    try:
        found = min_max(a, b, 3)
        assert min_max(a[:0], b, 3).shape == (0, 9)
    finally:
        torch.set_num_threads(before)
        minmax._library.cache_clear()
    np.testing.assert_allclose(found, reference(a, b, 3), atol=FLOAT32)
    if level:
        assert found[0, 0] == 1.0  # to the last bit
        np.testing.assert_array_equal(min_max(b, a, 3), found.T)
