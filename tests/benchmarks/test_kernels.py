"""Tables from rows, break-even from ratios, every measurement on something tiny, the command."""

import json

import pytest

from benchmarks import kernels
from benchmarks import kernels_measure as m
from benchmarks.kernels import README, RESULTS, goals, main, page, read, tables
from benchmarks.kernels_rows import measure_messages, measure_rounding, measure_segment_sum
from core.errors import ConfigError
from core.kernels import call

IDENTITY = {"processor", "instructions", "n_thread", "torch", "commit"}


def row(density, ratio, **other):
    return {
        "what": "product", "batch": 8, "features": 8, "out_features": 8, "block": 4,
        "density": density, "dtype": "fp32", "pass": "step", "time_s": 1e-3,
        "ratio_vs_torch_mm": ratio, "ratio_vs_onednn": ratio, "ratio_vs_same_dtype_dense": ratio,
        "fraction_of_peak": 0.5, "processor": "some", "instructions": "avx2", "n_thread": 1,
        "commit": "abc",
    } | other  # fmt: skip


def test_break_even_is_where_linear_time_meets_dense():
    # Times 1/4, 1/2 and 2 of dense: the line from .5 to 2 meets 1 a third of the way.
    rows = [row(0.1, 4.0), row(0.3, 2.0), row(0.9, 0.5)]
    assert m.least_sparsity(rows) == pytest.approx(1 - 0.5)
    assert m.least_sparsity(rows[:2]) == pytest.approx(0.7)


def test_tables_show_the_newest_row_of_a_question():
    text = tables([row(0.1, 3.0), row(0.1, 4.0), row(0.2, 2.0)])
    assert text.count("| fp32 |") == 2
    assert "| 4.00 | 4.00 | 4.00 | 0.50 |  | abc |" in text
    assert "3.00" not in text


def test_goals_show_the_worst_shape():
    rows = [row(0.1, 9.0, block=16), row(0.1, 7.0, block=16, batch=64), row(0.5, 1.0, block=16)]
    text = goals(rows)
    want = "| step at 90 % zeros over oneDNN, block 16 | ≥ 8 | 7 | 64 x 8, block 16 | 8 | 1 of 2 |"
    assert want in text
    assert "| two threads over one | ≥ 1.8 | not measured |" in text


def test_a_step_that_never_wins_is_the_worst_there_is():
    rows = [row(0.1, 0.9), row(0.5, 0.5)]
    assert m.least_sparsity(rows) == 1.0
    text = goals([row(1, 1, what="break-even", block=4, sparsity_vs_onednn=1.0)])
    assert "block 4 | ≤ 0.3 | 1 | 8 x 8, block 4 | 1 | 0 of 1 |" in text


def test_the_page_is_what_its_rows_say():
    assert README.read_text(encoding="utf-8") == page(read(RESULTS))


def test_the_newest_rows_stay_when_the_page_is_made(tmp_path, monkeypatch):
    results, readme = tmp_path / "kernels.jsonl", tmp_path / "README.md"
    monkeypatch.setattr(kernels, "RESULTS", results)
    monkeypatch.setattr(kernels, "README", readme)
    rows = [row(0.1, 3.0), row(0.2, 2.0), row(0.1, 4.0)]
    kernels.keep(rows, results)
    assert main(["--readme"]) == 0
    assert read(results) == [rows[2], rows[1]]
    assert readme.read_text(encoding="utf-8") == page(rows)


@pytest.mark.skipif(call.kernels() is None, reason="no compiled kernels")
def test_every_measurement_gives_a_whole_row(capsys):
    sizes = {"batch": 16, "features": 32, "n_repeat": 3}
    rows = [
        m.measure_break_even(16, 32, 32, 4, n_repeat=2),
        m.measure_threads(4, **sizes),
        measure_messages(8, edges="kinds", n_molecule=2, n_repeat=2),
        measure_messages(8, edges="rows", n_molecule=2, n_repeat=2, dtype="bf16"),
        measure_segment_sum(8, n_molecule=2, n_repeat=2),
        measure_rounding("int8", n_repeat=2),
        *m.measure_instructions(4, **sizes),
        *m.measure_sparseprop(0.5, **sizes),
    ]
    if m.importlib.util.find_spec("sparseprop") is None:
        assert "SparseProp left out: sparseprop is not installed" in capsys.readouterr().err
    for got in rows:
        assert got.keys() >= IDENTITY
        times = [v for k, v in got.items() if k.endswith("time_s") or "ratio" in k]
        assert all(not v <= 0 for v in times), got
    assert rows[1]["n_thread"] == 2
    assert tables(rows).count("|---") > len({r["what"] for r in rows})


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("one", ["", "dw"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_command_appends_rows(tmp_path, capsys, dtype, one):
    file = tmp_path / "rows.jsonl"
    arguments = ["--batch", "8", "--features", "16", "--block", "4", "--density", "0.5",
                 "--dtype", dtype, "--repeat", "2", "--json", str(file)]  # fmt: skip
    if dtype == "int8" and one:
        with pytest.raises(SystemExit):
            main([*arguments, "--pass", one])
        assert "int8 has --pass forward only" in capsys.readouterr().err
        return
    assert main([*arguments, *(["--pass", one] if one else [])]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    all_of = ["forward"] if dtype == "int8" else ["forward", "dx", "dw", "step"]
    assert [r["pass"] for r in rows] == ([one] if one else all_of)
    for got in rows:
        assert (got["dtype"], got["out_features"], got["density"]) == (dtype, 16, 0.5)
        assert got["time_s"] > 0
        names = ("torch_mm", "onednn", "same_dtype_dense")
        assert all(got[f"ratio_vs_{name}"] > 0 for name in names)
        assert got["fraction_of_peak"] < 1 or call.kernels() is None
    assert "Batch 8, 16 to 16" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0", "-4", "many"])
def test_sizes_that_are_none_are_refused(capsys, size):
    with pytest.raises(SystemExit):
        main(["--features", size])
    assert f"expected a whole number of 1 or more, got {size!r}" in capsys.readouterr().err


def test_a_part_that_the_table_lacks_is_refused():
    with pytest.raises(
        ConfigError, match=r"--only 'nonsense' fits nothing of the table; its parts"
    ):
        main(["--only", "nonsense"])
