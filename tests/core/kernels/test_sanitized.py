"""Every kernel under AddressSanitizer and UBSan: no stray access, no undefined arithmetic."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.kernels import load

SCRIPT = """
import ctypes, itertools, sys
import torch
from core.kernels import call, copies, messages, norm, packed
from core.precision import FORMATS
from core.sparse import BlockPattern

kernels = call.Kernels(ctypes.CDLL(sys.argv[1]))
g = torch.Generator().manual_seed(1)
blocks = [(1, 1), (4, 4), (8, 8), (16, 16), (12, 20), (5, 3), (16, 1), (1, 16), (2, 2)]
for n_thread, block, batch, density in itertools.product((1, 2), blocks, (0, 1, 131), (0.05, 0.4)):
    torch.set_num_threads(n_thread)
    p = BlockPattern.random((75, 141), block, density, g)
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.randn(p.n_block, *block).to(dtype)
        x, dy = torch.randn(batch, 141).to(dtype), torch.randn(batch, 75).to(dtype)
        call.spmm(kernels, x, values, p.row_ptr, p.col_index, 75)
        turned = call.transpose_blocks(kernels, values, p.order_t)
        call.spmm(kernels, dy, turned, p.col_ptr, p.row_index_t, 141)
        call.sddmm(kernels, dy, x, p.row_index, p.col_index, *block)
        if dtype == torch.float32:
            index = p.row_index, p.col_index, p.col_ptr, p.row_index_t, p.order_t
            call.spmm_backward(kernels, dy, x, values, *index)
    if block[1] % 4 == 0:
        codes = torch.randint(-127, 128, values.shape, dtype=torch.int8)
        scale = torch.rand(p.grid[0] * block[0], 1)
        wide = torch.randn(batch, 141)
        call.linear_int8(
            kernels, wide, torch.tensor(0.02), codes, scale, p.row_ptr, p.col_index, 75
        )
for n_thread, edge, batch in itertools.product((1, 2), (4, 8, 16), (1, 40, 2000)):
    torch.set_num_threads(n_thread)
    p = BlockPattern.random((96, 144), (edge, edge), 0.3, g)
    tensors = p.row_ptr, p.row_index, p.col_index, p.col_ptr, p.row_index_t, p.order_t
    values, bias = torch.randn(p.n_block, edge, edge), torch.randn(96)
    x = packed.pack(kernels, torch.randn(batch, 144))
    y = packed.spmm_packed(kernels, x, values, p.row_ptr, p.col_index, p.grid[1], bias)
    packed.unpack(kernels, y)
    for needs_dx in (True, False):
        packed.backward_packed(kernels, y.x, x, values, tensors, needs_dx)
eights = [(16, 16), (32, 8), (16, 32)]
for n_thread, block, batch in itertools.product((1, 2), eights, (1, 40, 300)):
    torch.set_num_threads(n_thread)
    layers = []
    for rows, cols, relu in ((160, 96, True), (64, 160, False), (96, 64, True)):
        p = BlockPattern.random((rows, cols), block, 0.3, g)
        codes = torch.randint(-127, 128, (p.n_block, *block), dtype=torch.int8)
        index, bias = (p.row_ptr, p.col_index), torch.randn(rows) if relu else None
        scales = torch.rand(rows, 1), torch.tensor(0.02)
        layers.append(call.IntegerLayer(codes, *scales, *index, bias, rows, cols, relu))
    call.stack_int8(kernels, torch.randn(batch, 96), layers)
for n_thread, block in itertools.product((1, 2), blocks):  # enough to share
    torch.set_num_threads(n_thread)
    p = BlockPattern.random((75, 141), block, 0.4, g)
    values, x, dy = torch.randn(p.n_block, *block), torch.randn(2000, 141), torch.randn(2000, 75)
    call.spmm(kernels, x, values, p.row_ptr, p.col_index, 75)
    index = p.row_index, p.col_index, p.col_ptr, p.row_index_t, p.order_t
    call.spmm_backward(kernels, dy, x, values, *index)
    call.sddmm(kernels, dy, x, p.row_index, p.col_index, *block)
    for dtype in (torch.float32, torch.bfloat16):
        dense = copies.write_blocks(kernels, values.to(dtype), p.row_index, p.col_index, (75, 141))
        copies.read_blocks(kernels, dense, p.row_index, p.col_index, block)
        if block == (1, 1) and (mask := copies.mask_of(kernels, p.row_index, p.col_index, p.shape)):
            copies.write_entries(kernels, mask, values.to(dtype), p.shape)
            for begin in (0, 20):
                copies.read_entries(kernels, mask, dense[begin:], begin, values.to(dtype))
for n_feature in (1, 16, 37, 300):
    index, x = torch.randint(1, 20, (200,)), torch.randn(200, n_feature)
    for i in (index, index.sort().values, index[:0]):
        messages.segment_sum(kernels, x[: len(i)], i, 23)
for n_feature, dtype, with_kind, reduce, relu in itertools.product(
    (1, 37, 211), (torch.float32, torch.bfloat16), (False, True), (0, 1, 2), (False, True)
):
    x, g_out = torch.randn(11, n_feature).to(dtype), torch.randn(9, n_feature).to(dtype)
    source, target = torch.randint(0, 11, (40,)), torch.randint(1, 8, (40,))
    into, edge_t = messages.group_rows(kernels, target, 9)
    out_of, edge_s = messages.group_rows(kernels, source, 11)
    kind = torch.randint(0, 6, (40,), dtype=torch.int32) if with_kind else None
    edge = torch.randn(6 if with_kind else 40, n_feature).to(dtype)
    by_target = into, source[edge_t].int(), edge_t
    _, winner = messages.pass_messages(kernels, x, edge, kind, *by_target, relu, reduce, False)
    by_source = into, out_of, target[edge_s].int(), edge_s
    messages.pass_messages_backward(
        kernels, g_out, x, edge, kind, winner, *by_source, relu, reduce, False, len(edge)
    )
    if reduce == 0:
        square, _ = messages.group_rows(kernels, target, 11)
        messages.pass_messages(kernels, x, edge, kind, square, *by_target[1:], relu, reduce, True)
        by_source = square, *by_source[1:]
        messages.pass_messages_backward(
            kernels, x, x, edge, kind, winner, *by_source, relu, reduce, True, len(edge)
        )
for n_thread, shape, dtype, relu in itertools.product(
    (1, 2), ((2, 1), (65, 37), (200, 304)), (torch.float32, torch.bfloat16), (False, True)
):
    torch.set_num_threads(n_thread)
    x, (weight, bias, *running) = torch.randn(shape).to(dtype), torch.rand(4, shape[1])
    for base in (None, x):
        _, *found = norm.batch_norm(
            kernels, x, base, weight, bias, running, eps=1e-5, momentum=0.1, relu=relu
        )
    norm.batch_norm_backward(kernels, x, x, weight, bias, *found, relu=relu)
assert messages.group_rows(kernels, torch.tensor([0, 9]), 9) is None
odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e-40, 3e38, -0.0])
x = torch.cat([torch.randn(20_001) * 1e3, odd])
for format in FORMATS.values():
    if format.name not in ("fp64", "fp32", "binary"):
        call.round_to(kernels, x, format)
        call.round_to(kernels, x, format, 12345678901234)
print("clean")
"""


@pytest.mark.slow
def test_no_stray_access_and_no_undefined_arithmetic(tmp_path):
    compiler, level = shutil.which("g++"), load.chosen_level()
    if compiler is None or level is None:
        pytest.skip("needs g++ and kernels")
    runtimes = [
        subprocess.run([compiler, f"-print-file-name=lib{name}.so"], capture_output=True, text=True,
                       check=True).stdout.strip()
        for name in ("asan", "ubsan")
    ]  # fmt: skip
    if not all(Path(r).is_absolute() for r in runtimes):
        pytest.skip("this g++ has no sanitizers")
    folder, library = Path(load.__file__).parent, tmp_path / "sanitized.so"
    flags = [f for f in load._COMMON if f != "-O3"] + list(load.LEVELS[level][1])
    checks = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = map(str, sorted(folder.glob("*.cpp")))
    subprocess.run([compiler, *flags, *checks, *sources, "-o", str(library)], check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself leaks by design
        "PYTHONPATH": str(folder.parent.parent),
    }
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(library)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.stdout.strip() == "clean", result.stderr[-3000:]
