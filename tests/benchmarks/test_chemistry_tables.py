import json

from apps.chemistry.compress import SCHEMA
from apps.lab.variant import Variant
from benchmarks import chemistry_tables


def test_the_page_is_what_the_documents_make():
    assert chemistry_tables.PAGE.read_text(encoding="utf-8") == chemistry_tables.page()


def test_compressed_networks_are_told_by_mean_and_worst_set(tmp_path, monkeypatch):
    document = {
        "schema": SCHEMA,
        "data": ["a", "b"],
        "variant": Variant(density=0.1, block=16, weight_format="int8").model_dump(),
        "n_epoch": 12,
        "n_network": 1,
        "weight_share": 0.1012,
        "dense": {"rmse": 0.7, "rmse_a": 0.6, "rmse_b": 0.8},
        "small": {"rmse": 0.705, "rmse_a": 0.59, "rmse_b": 0.82},
        "rank_correlation": [0.99, 0.97],
    }
    (tmp_path / "compress-x.json").write_text(json.dumps(document))
    (tmp_path / "other.json").write_text("[]")
    monkeypatch.setattr(chemistry_tables, "RESULTS", tmp_path)
    lines = chemistry_tables.page().splitlines()
    (row,) = [line for line in lines if line.startswith("| 2 sets")]
    assert [cell.strip() for cell in row.strip("| ").split("|")] == [
        "2 sets", "1", "sparse-16x16-90-int8", "12", "10.1 %", "0.7000", "0.7050", "+0.0050",
        "+0.0200", "0.9800", "0.9700",
    ]  # fmt: skip
    assert "| b | 0.8000 | +0.0200 (0.9700) |" in lines


def test_documents_of_one_suite_and_several_seeds_make_one_section(tmp_path, monkeypatch):
    whole = json.loads((chemistry_tables.RESULTS / "moleculeace.json").read_text())
    (tmp_path / "moleculeace.json").write_text(json.dumps(whole))
    other = json.loads(json.dumps(whole)) | {"seeds": [1]}
    for places in other["errors"].values():
        places["hybrid"]["rmse"] = round(places["hybrid"]["rmse"] + 0.01, 4)
    (tmp_path / "moleculeace-seed1.json").write_text(json.dumps(other))
    monkeypatch.setattr(chemistry_tables, "RESULTS", tmp_path)
    lines = chemistry_tables.page().splitlines()
    assert [line for line in lines if line.startswith("## ")] == ["## moleculeace"]
    assert any(line.endswith("seeds 0, 1") for line in lines)
    errors = [places["hybrid"]["rmse"] for places in whole["errors"].values()]
    (mean, *_), (spread, *_) = (
        [line for line in lines if line.startswith(start)]
        for start in ("| mean |", "| s.d. of it, 2 seeds |")
    )
    hybrid = 12  # cell of the table
    assert mean.split("|")[1 + hybrid].strip() == f"{sum(errors) / 22 + 0.005:.3f}"
    assert spread.split("|")[1 + hybrid].strip() == "0.007"  # .01 over the root of 2
