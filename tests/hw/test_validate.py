"""Validation: rows quoted from published tables, reasons, groups and bad tables."""

import json
from pathlib import Path

import pytest

from core.errors import DataError
from hw.validate import COLUMNS, is_held_out, read_table, validate

BOW = "Bow IPU (1 chip, 1472 tiles, 1.85 GHz)"
#: Facts from graphcore-research/sparsity-benchmarks (Analysis.ipynb at bab5449f) and
#: PrincetonUniversity/LLMCompass (ae/figure5 at 2e015fd2); the last three rows are made up.
ROWS = [
    ("dense", BOW, "matmul", "FP16", "4096", "4096", "256", "", "1", "dense", "throughput",
     "176.05"),
    ("static", BOW, "spmm", "FP16", "4096", "4096", "1024", "1", "0.0625", "static",
     "nonzero_throughput", "10.5"),
    ("dynamic", BOW, "spmm", "FP16", "4096", "4096", "best", "16", "0.0625", "dynamic",
     "nonzero_throughput", "26.921"),
    ("ratio", BOW, "spmm", "FP16", "4096", "4096", "64", "16", "0.25", "static",
     "speedup_vs_dense", "1.827"),
    ("latency", "A100 80GB (LLMCompass testbed)", "matmul", "FP16", "1024", "12288", "12288", "",
     "", "dense", "latency", "1.199"),
    ("memory", BOW, "spmm", "FP16", "8192", "8192", "1024", "16", "0.25", "static", "no_result",
     "nan"),
    ("train", "Bow Pod16", "train:ResNet-50 v1.5", "FP16.16", "", "", "", "", "", "dense",
     "throughput", "42029"),
    ("text", BOW, "matmul", "FP16", "many", "4096", "256", "", "1", "dense", "throughput", "1"),
    ("value", BOW, "matmul", "FP16", "4096", "4096", "256", "", "1", "dense", "throughput", "fast"),
    ("density", BOW, "spmm", "FP16", "4096", "4096", "256", "1", "7", "static",
     "nonzero_throughput", "1"),
]  # fmt: skip
#: Largest error of hw.validate on the quoted rows, rounded up.
QUOTED_TOLERANCE = 0.25


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    lines = [",".join(COLUMNS)]
    for row in ROWS:
        lines.append(",".join(f'"{cell}"' for cell in row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_quoted_rows_are_predicted_and_others_say_why_not(table: Path) -> None:
    rows = {row.id: row for row in validate(table).rows}
    assert len(rows) == len(ROWS)
    for name in ("dense", "static", "dynamic", "ratio", "latency"):
        row = rows[name]
        assert row.reason == ""
        assert row.error is not None
        assert row.error == pytest.approx(row.predicted / row.measured - 1)  # type: ignore[operator]
        assert abs(row.error) < QUOTED_TOLERANCE
    assert "training of a whole model" in rows["train"].reason
    assert rows["memory"].reason == "the source has no result; predicted not to fit in memory"
    assert rows["text"].reason == "m 'many' is not a positive whole number"
    assert rows["value"].reason == "value 'fast' is not a number"
    assert rows["density"].reason == "density '7' is not a number in (0, 1]"
    assert all(rows[name].predicted is None for name in ("train", "text", "value", "density"))


def test_groups_hold_the_median_p90_and_bias_of_their_rows(table: Path) -> None:
    result = validate(table)
    group, row = result.groups["bow matmul fp16"], result.rows[0]
    assert group.n == 1
    assert group.median_error == group.p90_error == abs(row.error or 0)
    assert group.bias == row.error
    assert "bow matmul fp16" in str(result)
    assert "not predicted: 1 rows: value 'fast' is not a number" in str(result)


def test_json_has_the_documented_form(table: Path) -> None:
    answer = json.loads(json.dumps(validate(table).to_json()))
    assert set(answer) == {"groups", "rows"}
    assert set(answer["groups"]["bow static spmm"]) == {"n", "median_error", "p90_error", "bias"}
    assert {"id", "measured", "predicted", "error", "reason"} <= set(answer["rows"][0])


def test_held_out_half_is_fixed_by_what_was_measured(table: Path) -> None:
    cells = read_table(table)
    assert all(is_held_out(c) == is_held_out({**c, "value": "3", "id": "other"}) for c in cells)
    many = [{**cells[0], "m": str(m)} for m in range(1, 2001)]
    # 2,000 fair draws: three deviations are 67
    assert abs(sum(is_held_out(c) for c in many) - 1000) < 67


def test_bad_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"table .*none.csv does not exist"):
        validate(tmp_path / "none.csv")
    path = tmp_path / "short.csv"
    path.write_text("id,machine\n1,a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"short.csv lacks the column op, dtype"):
        validate(path)
