"""The compiled kernels: instruction sets, threads, forks, bad indices, and life without them."""

import gc
import multiprocessing
import os
import subprocess
import sys

import pytest
import torch

from core.errors import ConfigError, IndexRangeError, PatternError
from core.kernels import call, copies, library, plans
from core.kernels.load import LEVELS, chosen_level
from core.sparse import BlockPattern, routes

# Two sums of k terms in different orders differ by at most 2 k u (|a| |b|), u = 2^-24.
UNIT_ERROR = 2.0**-24

pytestmark = pytest.mark.skipif(
    call.kernels() is None, reason="no compiled kernels: no C++ compiler, or TESSERA_KERNELS=torch"
)


def fitting_levels():
    names = list(LEVELS)
    best = chosen_level()
    return names[names.index(best) :] if best else []


def problem(block, batch, shape=(75, 141), density=0.4):
    g = torch.Generator().manual_seed(1)
    p = BlockPattern.random(shape, block, density, g)
    values = torch.randn(p.n_block, *block, generator=g)
    x = torch.randn(batch, shape[1], generator=g)
    dy = torch.randn(batch, shape[0], generator=g)
    return p, values, x, dy


def products(kernels, p, values, x, dy):
    transposed = call.transpose_blocks(kernels, values, p.order_t)
    return (
        call.spmm(kernels, x, values, p.row_ptr, p.col_index, p.shape[0]),
        call.spmm(kernels, dy, transposed, p.col_ptr, p.row_index_t, p.shape[1]),
        call.sddmm(kernels, dy, x, p.row_index, p.col_index, *p.block),
        *call.spmm_backward(
            kernels, dy, x, values, p.row_index, p.col_index, p.col_ptr, p.row_index_t, p.order_t
        ),
    )


@pytest.mark.parametrize("level", fitting_levels())
def test_every_instruction_set_agrees_with_plain_torch(level):
    kernels = call.Kernels(library(level))
    for block in [(1, 1), (4, 4), (8, 8), (16, 16), (12, 20), (5, 3), (16, 1), (1, 16), (2, 2)]:
        for batch in (1, 64, 131):
            p, values, x, dy = problem(block, batch)
            got = products(kernels, p, values, x, dy)
            index = p.row_index, p.col_index
            want = (
                routes.spmm(x, values, *index, p.grid[0])[:, :75],
                dy @ routes.expand(values, *index, p.grid)[:75, :141],
                routes.sddmm(dy, x, *index, block),
            )
            size = (
                routes.spmm(x.abs(), values.abs(), *index, p.grid[0])[:, :75],
                dy.abs() @ routes.expand(values.abs(), *index, p.grid)[:75, :141],
                routes.sddmm(dy.abs(), x.abs(), *index, block),
            )
            again, counts = slice(1, 3), (141, 75, batch)
            want, size, counts = (t + t[again] for t in (want, size, counts))
            for a, b, s, k in zip(got, want, size, counts, strict=True):
                assert ((a - b).abs() <= 2 * k * UNIT_ERROR * s).all(), (block, batch)


@pytest.mark.parametrize("block", [(1, 1), (8, 8)])
@pytest.mark.parametrize("batch", [30, 200])
def test_threads_change_the_order_of_sums_over_samples_only(block, batch):
    before = torch.get_num_threads()
    # Large enough for the kernels to start a second thread: below 4 million multiply-adds none.
    p, values, x, dy = problem(block, batch, shape=(400, 600), density=0.7)
    try:
        results = []
        for n in (1, 2, 2, 3):
            torch.set_num_threads(n)
            results.append(products(call.kernels(), p, values, x, dy))
    finally:
        torch.set_num_threads(before)
    one, two, again, _ = results
    for a, b in zip(two, again, strict=True):
        assert torch.equal(a, b)
    size = routes.sddmm(dy.abs(), x.abs(), p.row_index, p.col_index, block)
    for other in results[1:]:
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            is_over_samples = i in (2, 4)
            assert (a - b).abs().le(2 * batch * UNIT_ERROR * size if is_over_samples else 0).all()


@pytest.mark.parametrize("level", fitting_levels())
@pytest.mark.parametrize("block", [(1, 1), (4, 4), (16, 16), (5, 3)])
def test_a_bias_is_added_as_by_torch(level, block):
    kernels = call.Kernels(library(level))
    bias = torch.randn(75, generator=torch.Generator().manual_seed(2))
    for batch in (0, 1, 64, 131):
        p, values, x, _ = problem(block, batch)
        args = kernels, x, values, p.row_ptr, p.col_index, 75
        assert torch.equal(call.spmm(*args, bias), call.spmm(*args) + bias)


def test_row_strides_are_taken_as_they_are():
    p, values, x, _ = problem((4, 4), 70)
    wide = torch.zeros(140, 200)
    wide[::2, :141] = x
    args = values, p.row_ptr, p.col_index, 75
    got = call.spmm(call.kernels(), wide[::2, :141], *args)
    assert torch.equal(got, call.spmm(call.kernels(), x, *args))
    expanded = x[:1].expand(70, 141)
    got = call.spmm(call.kernels(), expanded, *args)
    assert torch.equal(got, call.spmm(call.kernels(), expanded.contiguous(), *args))


def test_order_inside_a_row_is_free():
    p, values, x, _ = problem((1, 1), 70)
    flip = torch.cat([torch.arange(int(b) - 1, int(a) - 1, -1)
                      for a, b in zip(p.row_ptr[:-1], p.row_ptr[1:], strict=True)])  # fmt: skip
    want = call.spmm(call.kernels(), x, values, p.row_ptr, p.col_index, 75)
    got = call.spmm(call.kernels(), x, values[flip], p.row_ptr, p.col_index[flip], 75)
    size = call.spmm(call.kernels(), x.abs(), values.abs(), p.row_ptr, p.col_index, 75)
    assert ((got - want).abs() <= 2 * 141 * UNIT_ERROR * size).all()


def test_bad_indices_are_errors_not_crashes():
    p, values, x, dy = problem((4, 4), 3)
    k, far = call.kernels(), p.col_index + 30
    match = r"core::spmm: a block index points outside the matrix; pass the tensors of one Block"
    with pytest.raises(IndexRangeError, match=match):
        call.spmm(k, x, values, p.row_ptr, far, 75)
    with pytest.raises(IndexRangeError, match=match):
        call.spmm(k, x, values, p.row_ptr, p.col_index - 30, 75)
    with pytest.raises(PatternError, match=r"core::spmm: block rows do not ascend from 0"):
        call.spmm(k, x, values, p.row_ptr + 1, p.col_index, 75)
    with pytest.raises(PatternError, match=r"core::spmm: block rows do not ascend from 0"):
        call.spmm(k, x, values, p.row_ptr.flip(0), p.col_index, 75)
    with pytest.raises(IndexRangeError, match=r"core::sddmm: a block index points outside"):
        call.sddmm(k, dy, x, p.row_index, far, 4, 4)
    with pytest.raises(IndexRangeError, match=r"core::spmm_t: a block index points outside"):
        call.transpose_blocks(k, values, p.order_t + 1)


def _forward_in_child(queue):
    p, values, x, dy = problem((8, 8), 200)
    queue.put([t.double().sum().item() for t in products(call.kernels(), p, values, x, dy)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_works_after_a_fork():
    _ = products(call.kernels(), *problem((8, 8), 200))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_forward_in_child, args=(queue,))
    child.start()
    got = queue.get(timeout=60)
    child.join(timeout=60)
    want = [t.double().sum().item() for t in products(call.kernels(), *problem((8, 8), 200))]
    assert got == want


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip


def test_without_a_compiler_it_says_so_once_and_goes_on():
    code = (
        "import torch, core; g = torch.Generator().manual_seed(0)\n"
        "layer = core.build_linear(8, 8, core.LayerSpec(0.5, 4), generator=g)\n"
        "layer(torch.ones(2, 8)); print(layer(torch.ones(2, 8)).shape)"
    )
    result = run_python(code, CXX="no-such-compiler", PATH="/nonexistent")
    assert result.stdout.strip() == "torch.Size([2, 8])"
    assert result.stderr.count("no C++ compiler found (g++, c++ or $CXX)") == 1
    quiet = run_python(code, TESSERA_KERNELS="torch")
    assert quiet.stdout == result.stdout
    assert quiet.stderr == ""


def test_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv("TESSERA_KERNELS", "avx9")
    with pytest.raises(ConfigError, match=r"must be auto, torch or one of .* got 'avx9'; unset"):
        chosen_level()


@pytest.mark.parametrize("block", [(1, 1), (3, 2)])
def test_a_plan_is_kept_with_its_pattern_and_made_anew_when_that_is_written_to(block):
    p, values, x, _ = problem(block, 9)
    k = call.kernels()

    def got_and_wanted(p):
        dense = routes.expand(values, p.row_index, p.col_index, p.grid)
        got = call.spmm(k, x, values, p.row_ptr, p.col_index, p.shape[0])
        return got, x @ dense[: p.shape[0], : p.shape[1]].t()

    torch.testing.assert_close(*got_and_wanted(p))
    made = len(plans._known)
    torch.testing.assert_close(*got_and_wanted(p))
    assert len(plans._known) == made
    first = slice(int(p.row_ptr[0]), int(p.row_ptr[1]))
    p.col_index[first] = p.col_index[first].flip(0)
    torch.testing.assert_close(*got_and_wanted(p))
    before = len(plans._known)
    del p
    gc.collect()
    assert len(plans._known) < before


def test_products_over_one_pattern_leave_each_other_their_plans(monkeypatch):
    p, values, x, dy = problem((1, 1), 9)
    k, n_made = call.kernels(), 0

    def made(*arguments):
        nonlocal n_made
        n_made += 1
        return make_plan(*arguments)

    make_plan = k.make_plan
    monkeypatch.setattr(k, "make_plan", made)
    index = p.row_index, p.col_index
    for _ in range(3):
        call.spmm(k, x, values, p.row_ptr, p.col_index, p.shape[0])
        with_starts = call.sddmm(k, dy, x, *index, 1, 1, p.row_ptr)
        alone = call.sddmm(k, dy, x, *index, 1, 1)
        call.spmm(k, dy, values, p.col_ptr, p.row_index_t, p.shape[1])
        call.spmm_backward(k, dy, x, values, *index, p.col_ptr, p.row_index_t, p.order_t)
    assert torch.equal(with_starts, alone)
    assert n_made == 4  # spmm's is that of sddmm with starts


def test_a_plan_in_inference_mode_is_made_each_time():
    with torch.inference_mode():
        p, values, x, _ = problem((1, 1), 9)
        dense = routes.expand(values, p.row_index, p.col_index, p.grid)
        got = call.spmm(call.kernels(), x, values, p.row_ptr, p.col_index, p.shape[0])
        torch.testing.assert_close(got, x @ dense.t())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", [(1, 1), (4, 4), (5, 3), (16, 16), (100, 200)])
def test_blocks_are_written_into_a_dense_matrix_and_read_again(block, dtype):
    p, values, _, _ = problem(block, 1)
    k, values = call.kernels(), values.to(dtype)
    dense = copies.write_blocks(k, values, p.row_index, p.col_index, p.shape)
    padded = values.new_zeros(p.grid[0], block[0], p.grid[1], block[1])
    padded[p.row_index.long(), :, p.col_index.long(), :] = values
    want = padded.view(p.grid[0] * block[0], -1)[: p.shape[0], : p.shape[1]]
    assert torch.equal(dense, want)
    again = copies.read_blocks(k, dense, p.row_index, p.col_index, block)
    assert torch.equal(copies.write_blocks(k, again, p.row_index, p.col_index, p.shape), want)
    with pytest.raises(IndexRangeError):
        copies.write_blocks(k, values, p.row_index + 1000, p.col_index, p.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 16), (40, 33), (17, 160), (300, 450)])
@pytest.mark.parametrize("n_thread", [1, 2])
def test_single_entries_are_copied_sixteen_places_at_a_time(n_thread, shape, dtype, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(n_thread)
    k, g = call.kernels(), torch.Generator().manual_seed(shape[0])
    try:
        for density in (0.0, 0.5, 0.97, 1.0):
            keep = torch.rand(shape, generator=g) < density
            p = BlockPattern.from_mask(keep, (1, 1))
            values = torch.randn(p.n_block, 1, 1, generator=g).to(dtype)
            x = torch.randn(5, shape[1], generator=g).to(dtype)
            dy = torch.randn(5, shape[0], generator=g).to(dtype)
            index, rows = (p.row_index, p.col_index), slice(shape[0] // 3, shape[0])
            mask = copies.mask_of(k, *index, shape)
            if mask is None:
                pytest.skip("no such instructions in this build")
            dense = copies.write_entries(k, mask, values, shape)
            assert torch.equal(dense, copies.write_blocks(k, values, *index, shape))
            read = torch.zeros_like(values)
            copies.read_entries(k, mask, dense[rows], rows.start, read)
            assert torch.equal(
                read, torch.where((p.row_index >= rows.start)[:, None, None], values, 0)
            )
            if density < 0.5:
                continue
            fast = routes.sddmm(dy, x, *index, (1, 1)), routes.expand(values, *index, p.grid)
            with monkeypatch.context() as m:
                m.setattr(copies, "mask_of", lambda *_: None)
                slow = routes.sddmm(dy, x, *index, (1, 1)), routes.expand(values, *index, p.grid)
            assert all(map(torch.equal, fast, slow))
    finally:
        torch.set_num_threads(before)


def test_entries_in_another_order_have_no_mask():
    p, values, *_ = problem((1, 1), 5)
    k, flipped = call.kernels(), p.col_index.clone()
    first = slice(int(p.row_ptr[0]), int(p.row_ptr[1]))
    flipped[first] = flipped[first].flip(0)
    assert copies.mask_of(k, p.row_index, flipped, p.shape) is None
    dense = routes.expand(values, p.row_index, flipped, p.grid)
    want = torch.zeros(p.shape)
    want[p.row_index.long(), flipped.long()] = values[:, 0, 0]
    assert torch.equal(dense, want)
    with torch.inference_mode():
        assert copies.mask_of(k, p.row_index.clone(), p.col_index, p.shape) is None
    with pytest.raises(IndexRangeError):
        copies.mask_of(k, p.row_index + 1000, p.col_index, p.shape)
