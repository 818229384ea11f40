import numpy as np
import pytest

from apps.chemistry.packing import fill_blocks, packing_efficiency
from core.errors import DataError


def test_largest_first_into_the_tightest_room():
    # 7 and 5 open blocks, 4 fits neither and opens a third, 3 goes to the 7, 2 to the 5's three
    assert fill_blocks([3, 7, 2, 5, 8], 10) == [[4, 2], [1, 0], [3]]


def test_drug_sized_molecules_fill_95_percent():
    n_atom = np.random.default_rng(0).integers(12, 45, 1000).tolist()
    for n_slot in (128, 256):
        blocks = fill_blocks(n_atom, n_slot)
        assert sorted(i for block in blocks for i in block) == list(range(1000))
        assert max(sum(n_atom[i] for i in block) for block in blocks) <= n_slot
        assert packing_efficiency(blocks, n_atom, n_slot) >= 0.95


def test_a_molecule_larger_than_a_block():
    with pytest.raises(DataError, match="molecule 1 has 40 atoms, a block holds 32"):
        fill_blocks([3, 40], 32)


def test_nothing_to_pack():
    assert fill_blocks([], 32) == []
    assert packing_efficiency([], [], 32) == 1.0
