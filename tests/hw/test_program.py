"""Liveness on a hand-made program."""

import numpy as np

from hw.program import Op, Program, Storage, TensorInfo

A = TensorInfo((2, 3), "fp32", storage=0, n_stored=6)
B = TensorInfo((4,), "bf16", storage=1, n_stored=4)
C = TensorInfo((4,), "fp32", storage=2, n_stored=4, is_complex=True)


def program() -> Program:
    ops = tuple(Op(f"aten.op{i}", {"self": A}, (B,), "forward", "") for i in range(4))
    storages = {
        0: Storage(100, "parameter", "weight", 2, 2),
        1: Storage(10, "activation", "early", 0, 1),
        2: Storage(1, "activation", "late", 1, 3),
    }
    return Program(ops, storages)


def test_live_bytes_by_hand():
    assert np.array_equal(program().live_byte(), [110, 111, 101, 101])
    assert program().resident_byte == 100


def test_owners_by_hand():
    assert [s.name for s in program().live_at(1)] == ["weight", "early", "late"]
    assert [s.name for s in program().live_at(2)] == ["weight", "late"]


def test_bytes_of_tensors():
    assert (A.byte, A.n_element) == (24, 6)
    assert (B.byte, B.n_element) == (8, 4)
    assert (C.byte, C.n_element) == (32, 8)  # a complex entry is two


def test_inputs_reach_into_lists():
    op = Op("aten.cat", {"tensors": (A, (B, None)), "dim": 0}, (C,), "forward", "")
    assert op.inputs == (A, B)
    assert op.out is C
    assert program().count() == {f"aten.op{i}": 1 for i in range(4)}


def test_tensors_with_equal_shapes_are_equal_whatever_their_entries():
    entries = np.arange(3)
    one = TensorInfo((3,), "int64", 0, data=entries, index=(entries, entries))
    other = TensorInfo((3,), "int64", 0, data=entries[::-1], index=(entries, entries[::-1]))
    assert one == other
    assert hash(one) == hash(other)
    assert "array" not in repr(one)
    assert one != TensorInfo((3,), "int64", 1)
