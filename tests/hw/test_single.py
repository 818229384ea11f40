"""One operation in words."""

import pytest

from core.errors import ConfigError
from hw.machine import load_machine
from hw.single import OPS, parse_op
from hw.targets import cost_item
from hw.work import (
    Attention,
    Contraction,
    Fourier,
    Gather,
    Move,
    Pointwise,
    Reduction,
    Scatter,
    Softmax,
    SparseContraction,
)


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("matmul m=2 k=3 n=4", Contraction(1, 2, 3, 4, "fp32", "fp32", "fp32")),
        ("matmul m=2 k=3 n=4 batch=5 dtype=fp16", Contraction(5, 2, 3, 4, "fp16", "fp16", "fp16")),
        ("softmax m=2 n=4", Softmax(2, 4, "fp32")),
        ("layer_norm m=2 n=4", Softmax(2, 4, "fp32", "layer_norm")),
        ("gelu m=2 n=4", Pointwise(8, "transcendental", "fp32", "fp32", 1, 2)),
        ("add m=2 n=4", Pointwise(8, "arithmetic", "fp32", "fp32", 2)),
        ("divide m=2 n=4", Pointwise(8, "divide", "fp32", "fp32", 2)),
        ("exp m=2 n=4", Pointwise(8, "transcendental", "fp32", "fp32")),
        ("sum m=2 n=4", Reduction(2, 4, "fp32", "fp32")),
        ("fourier m=2 n=96", Fourier(2, 96, "fp32")),
        ("transpose m=3 n=5 dtype=fp16", Move(30, "rearrange")),
        ("gather m=2 n=4 of=9", Gather(2, 4, 9, "fp32")),
        ("segment_sum m=2 n=4 into=9", Scatter(2, 4, 9, "fp32")),
        (
            "legendre m=22 degree=21 latitude=32 n=8",
            Contraction(22, 21, 32, 8, "fp32", "fp32", "fp32"),
        ),
        (
            # four groups of 16 channels, 9 taps each, 2 images of 7 x 7 positions
            "convolution batch=2 in=64 out=64 size=7 group=4",
            Contraction(4, 16, 144, 98, "fp32", "fp32", "fp32", 4, 9.0),
        ),
        (
            "spmm m=4096 k=4096 n=1024 block=16 density=0.0625 dtype=fp16 mode=dynamic",
            SparseContraction(
                "spmm", 4096, 4096, 1024, (16, 16), 4096, "fp16", "fp16", "fp16", "dynamic"
            ),
        ),
    ],
)
def test_parse(text, item):
    assert parse_op(text) == item


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "op '' is unknown; known are matmul"),
        ("matmal m=2", r"op 'matmal' is unknown; did you mean 'matmul'\?"),
        ("matmul m=2 k=3 blok=4", "matmul has no argument 'blok'; known are m, k, n"),
        ("spmm m=2 k=3 blok=4", r"did you mean 'block'\?"),
        ("matmul m=2.5 k=3 n=4", "matmul: m must be a whole number, got '2.5'"),
        ("matmul m=2 k=3 n=4 m=5", "matmul: m is given twice"),
        ("spmm m=2 k=3 n=4 density=x", "spmm: density must be a number, got 'x'"),
        ("spmm m=2 k=3 n=4 density=nan", "spmm: density must be positive, got nan"),
        ("matmul m=2", "matmul: k, n missing; write as in k=1024"),
        ("matmul m=2 k=0 n=4", "matmul: k must be positive, got 0"),
        ("matmul m=2 k=3 n=4 dtype=fp17", "dtype 'fp17' is unknown; did you mean 'fp1"),
        ("spmm m=2 k=3 n=4 density=1.5", r"spmm: density must lie in \(0, 1\], got 1.5"),
        (
            "convolution batch=1 in=3 out=4 size=8 group=2",
            "in must be a multiple of group = 2, got 3",
        ),
        (
            "attention batch=1 head=3 length=4 width=8",
            "width must be a multiple of head = 3, got 8",
        ),
        ("spmm m=2 k=3 n=4 mode=odd", "spmm: mode must be static or dynamic, got 'odd'"),
    ],
)
def test_slips(text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parse_op(text)


def test_attention_is_scores_softmax_and_weighted_sum():
    item = parse_op("attention batch=2 head=4 length=8 width=64 dtype=fp16")
    assert item == Attention(8, 8, 8, 16, 16, "fp16")
    assert item.parts == (
        Contraction(8, 8, 16, 8, "fp16", "fp16", "fp16"),
        Softmax(64, 8, "fp16"),
        Contraction(8, 8, 8, 16, "fp16", "fp16", "fp16"),
    )
    assert item.n_mac == 2 * 8 * 8 * 8 * 16


#: Sizes of every argument, as small as they may be.
LEAST = {"density": "0.5", "dtype": "fp16", "mode": "static", "pattern": "dense"}


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("size", ["1", "13"])
@pytest.mark.parametrize("machine", ["ipu_bow", "a100", "tpu_v3"])
def test_every_op_has_a_cost_at_the_smallest_and_at_odd_sizes(name, size, machine):
    words = [f"{key}={LEAST.get(key, size)}" for key in OPS[name]]
    cost = cost_item(parse_op(" ".join([name, *words])), load_machine(machine))
    assert 0 < cost.time_s < 1e-3
    assert cost.plan
