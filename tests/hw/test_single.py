"""One operation in words."""

import pytest

from core.errors import ConfigError
from hw.single import parse_op
from hw.work import Contraction, Pointwise, Softmax, SparseContraction


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("matmul m=2 k=3 n=4", Contraction(1, 2, 3, 4, "fp32", "fp32", "fp32")),
        ("matmul m=2 k=3 n=4 batch=5 dtype=fp16", Contraction(5, 2, 3, 4, "fp16", "fp16", "fp16")),
        ("softmax m=2 n=4", Softmax(2, 4, "fp32")),
        ("layer_norm m=2 n=4", Softmax(2, 4, "fp32", "layer_norm")),
        ("gelu m=2 n=4", Pointwise(8, "transcendental", "fp32", "fp32", 1, 2)),
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
        ("matmul m=2.5 k=3 n=4", "matmul: m must be int, got '2.5'"),
        ("matmul m=2", "matmul: k, n missing; write as in k=1024"),
        ("matmul m=2 k=0 n=4", "matmul: k must be positive, got 0"),
        ("matmul m=2 k=3 n=4 dtype=fp17", "dtype 'fp17' is unknown; did you mean 'fp1"),
        ("spmm m=2 k=3 n=4 density=1.5", r"spmm: density must lie in \(0, 1\], got 1.5"),
        ("spmm m=2 k=3 n=4 mode=odd", "spmm: mode must be static or dynamic, got 'odd'"),
    ],
)
def test_slips(text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parse_op(text)
