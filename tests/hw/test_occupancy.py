"""Bytes of what an item reads and writes, by hand, and of one that runs alone."""

from dataclasses import replace

import pytest

from hw.machine import load_machine
from hw.occupancy import alone_byte, operand_byte
from hw.targets import cost_item
from hw.work import (
    Attention,
    Contraction,
    Fourier,
    Fused,
    Gather,
    HostRead,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
    SparseContraction,
    Work,
)

DENSE = Contraction(2, 3, 4, 5, "fp16", "int8", "fp32")
SPARSE = SparseContraction("spmm", 32, 64, 10, (16, 8), 3, "int8", "fp16", "fp32")
ADD = Pointwise(7, "arithmetic", "fp16", "fp32", 2)


@pytest.mark.parametrize(
    ("item", "byte"),
    [
        (DENSE, 2 * (12 * 2 + 20 * 1 + 15 * 4)),
        # overlapping windows hold each entry of B twice
        (replace(DENSE, window=2.0), 2 * (12 * 2 + 10 * 1 + 15 * 4)),
        (SPARSE, 3 * 128 + 64 * 10 * 2 + 32 * 10 * 4),
        (replace(SPARSE, product="spmm_t"), 3 * 128 + 32 * 10 * 2 + 64 * 10 * 4),
        (replace(SPARSE, product="sddmm"), 3 * 128 * 4 + (32 + 64) * 10 * 2),
        (ADD, 7 * (2 * 2 + 4)),
        (Reduction(3, 5, "fp16", "fp32"), 3 * (10 + 4)),
        (Fused((ADD, replace(ADD, n_input=1))), 7 * (4 + 2 + 4)),
        (Fused((ADD,), Reduction(1, 7, "fp32", "fp64"), ("bool",)), 7 * (4 + 1) + 8),
        (Softmax(3, 5, "fp16"), 60),
        (Attention(2, 3, 5, 8, 4, "fp16"), 2 * (3 * 12 + 5 * 12) * 2),
        (Attention(2, 3, 5, 8, 4, "fp16", is_backward=True), 4 * (3 * 12 + 5 * 12) * 2),
        (Gather(3, 4, 9, "fp16"), (3 + 9) * 4 * 2),
        (Scatter(3, 4, 9, "fp16"), (3 + 9) * 4 * 2),
        (Fourier(3, 8, "fp32"), 2 * 3 * 8 * 4),
        (Move(10, "copy"), 20),
        (Move(10, "fill"), 10),
        (HostRead(8), 8),
    ],
    ids=lambda value: type(value).__name__,
)
def test_operands_by_hand(item: Work, byte: float) -> None:
    assert operand_byte(item) == byte


def test_alone_on_tiles_operands_are_spread_and_temporaries_and_code_come_on_top() -> None:
    bow, a100 = load_machine("ipu_bow"), load_machine("a100")
    item = Contraction(1, 512, 512, 512, "fp16", "fp16", "fp16")
    cost = cost_item(item, bow)
    assert cost.temporary_byte > 0
    spread = 3 * 512 * 512 * 2 / 1472
    assert alone_byte(item, [cost], bow) == spread + cost.temporary_byte + 65_536
    # a memory beside the chip holds operands alone: what is partial lies in caches
    assert alone_byte(item, [cost_item(item, a100)], a100) == 3 * 512 * 512 * 2
