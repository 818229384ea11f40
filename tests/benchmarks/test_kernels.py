"""Tables from rows, break-even from ratios, and the command on a layer of no size."""

import json

import pytest

from benchmarks.kernels import break_even, main, tables


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
    assert break_even(rows) == pytest.approx(1 - 0.5)
    assert break_even(rows[:2]) == pytest.approx(0.7)


def test_tables_show_the_newest_row_of_a_question():
    text = tables([row(0.1, 3.0), row(0.1, 4.0), row(0.2, 2.0)])
    assert text.count("| fp32 |") == 2
    assert "| 4.00 | 4.00 | 4.00 | 0.50 | abc |" in text
    assert "3.00" not in text


def test_command_appends_rows(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    arguments = ["--batch", "8", "--features", "16", "--block", "4", "--density", "0.5",
                 "--pass", "dw", "--repeat", "2", "--json", str(file)]  # fmt: skip
    assert main(arguments) == 0
    (got,) = map(json.loads, file.read_text().splitlines())
    assert (got["pass"], got["out_features"], got["density"]) == ("dw", 16, 0.5)
    assert got["time_s"] > 0
    assert "Batch 8, 16 to 16" in capsys.readouterr().out
