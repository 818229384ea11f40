import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.chemistry.answers import predict, predict_file
from apps.chemistry.config import TrainConfig
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import featurise
from apps.chemistry.predictor import Predictor, build_network
from apps.chemistry.reference import Reference
from apps.lab.config import load_config
from core.errors import DataError

# Predictions are written with four significant digits.
FOUR_DIGITS = 6e-4
HOSTILE = """id,smiles,note
a,CCO,"two
lines"
b,C1CC(,open
c,,empty
d,c1ccccc1,"a,b"
e
f,C[C@H](N)C(=O)O,x,y
g,Ω,greek
h,CCO,again
"""


def make_predictor(n_member=1, unit="pIC50", names=("pk",), reference=None):
    config = load_config(TrainConfig, overrides=["model.d_hidden=16", "model.n_layer=1"])
    members = [
        build_network(config, n_task=len(names), seed=seed).eval() for seed in range(n_member)
    ]
    for member in members:
        member.set_scale(np.tile([[5.0], [9.0]], len(names)).astype(np.float32))
    return Predictor(config, list(names), unit, list(range(n_member)), members, reference)


def write(tmp_path, text):
    file = tmp_path / "in.csv"
    file.write_text(text, encoding="utf-8")
    return file


def read(file):
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.reader(text))


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_same_rows_same_order_with_a_status(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(predict, "CHUNK", chunk)
    predictor = make_predictor()
    out = tmp_path / "out.csv"
    counts = predict_file(predictor, write(tmp_path, HOSTILE), out)
    header, *rows = read(out)
    assert header == [
        "id",
        "smiles",
        "note",
        "predicted_pk",
        "predicted_pk_nM",
        "warnings",
        "status",
    ]
    assert all(len(row) == len(header) for row in rows)
    assert [row[0] for row in rows] == list("abcdefgh")
    assert [row[-1][:7] for row in rows] == [
        "ok", "invalid", "invalid", "ok", "invalid", "invalid", "invalid", "ok"
    ]  # fmt: skip
    assert counts == {"ok": 3, "invalid": 5}
    assert "open" not in rows[1][-1]
    assert rows[4][-1] == "invalid: 1 cells, the header has 3"
    assert rows[0][2] == "two\nlines"
    assert all(row[3] == row[4] == "" for row in rows if row[-1] != "ok")
    expected = predictor.predict([featurise("CCO"), featurise("c1ccccc1")])[:, 0]
    assert float(rows[0][3]) == pytest.approx(expected[0], rel=FOUR_DIGITS)
    assert float(rows[3][3]) == pytest.approx(expected[1], rel=FOUR_DIGITS)
    assert rows[7][3] == rows[0][3]
    assert float(rows[3][4]) == pytest.approx(10 ** (9 - float(expected[1])), rel=FOUR_DIGITS)


def test_members_give_a_mean_and_a_spread(tmp_path):
    predictor = make_predictor(n_member=3, unit="kcal/mol", names=("a", "b"))
    out = tmp_path / "out.csv"
    predict_file(predictor, write(tmp_path, "SMI\nCCO\n"), out, smiles="SMI")
    header, row = read(out)
    assert header == ["SMI", "predicted_a", "predicted_b", "sd_a", "sd_b", "warnings", "status"]
    each = np.stack([m.predict(_batch("CCO")).detach().numpy()[0] for m in predictor.members])
    values = [float(v) for v in row[1:5]]
    np.testing.assert_allclose(values[:2], each.mean(0), rtol=FOUR_DIGITS)
    np.testing.assert_allclose(values[2:], each.std(0, ddof=1), rtol=FOUR_DIGITS)


@pytest.mark.parametrize(
    ("unit", "is_log"),
    [("y [pEC50/pKi]", True), ("pK (model pocket)", True), ("pk", True), ("pKa", False),
     ("kcal/mol", False), ("IC50", False)],
)  # fmt: skip
def test_only_logarithmic_units_are_turned_into_nanomole(tmp_path, unit, is_log):
    out = tmp_path / "out.csv"
    predict_file(make_predictor(unit=unit), write(tmp_path, "smiles\nCCO\n"), out)
    assert ("predicted_pk_nM" in read(out)[0]) == is_log


def _batch(smiles):
    from apps.chemistry.network import pack

    return pack([featurise(smiles)])


def test_strict_stops_at_the_first_bad_row_and_writes_nothing(tmp_path):
    out = tmp_path / "out.csv"
    with pytest.raises(DataError, match=r"row 3 of in.csv: 'C1CC\(' is not a SMILES"):
        predict_file(make_predictor(), write(tmp_path, HOSTILE), out, strict=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "in.csv"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "in.csv: the file is empty; expected a header and at least one row"),
        ("a,b\n1,2\n", "in.csv: no column 'smiles'; it has 'a', 'b'"),
        ("smiles,smiles\nC,C\n", "in.csv: column 'smiles' stands 2 times in the header"),
    ],
)
def test_refuses(tmp_path, text, match):
    with pytest.raises(DataError, match=match):
        predict_file(make_predictor(), write(tmp_path, text), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_names_the_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.csv: cannot be read"):
        predict_file(make_predictor(), tmp_path / "nothing.csv", tmp_path / "out.csv")


@pytest.fixture(scope="module")
def reference():
    smiles = [f"{'C' * i}{end}" for i in range(1, 12) for end in ("O", "N", "S", "c1ccccc1")]
    split = np.array(["train", "train", "train", "valid"] * 11)
    table = Table(
        name="t",
        smiles=smiles,
        graphs=[featurise(s) for s in smiles],
        target=np.arange(len(smiles), dtype=np.float32)[:, None],
        split=split,
        row=np.arange(len(smiles)),
        target_names=["pk"],
        unit="pIC50",
        sha256="",
        source="file",
    )
    return Reference.of(table, table.select("valid").target + 1.0)


def test_answers_name_neighbour_interval_domain_and_stereo(tmp_path, reference):
    out = tmp_path / "out.csv"
    text = "smiles\nCCCCO\nCCC(F)O\nCCN.Cl\nCC(=O)[O-]\n[Na+]\nO=C1C=CC(=O)c2ccccc21\n"
    config = load_config(TrainConfig, overrides=["data.source=x.csv"])
    predictor = replace(make_predictor(reference=reference), config=config)
    counts = predict_file(predictor, write(tmp_path, text), out)
    assert counts == {"ok": 3, "fixed": 2, "invalid": 1}
    header, *rows = read(out)
    assert header[3:] == [
        "lower_pk", "upper_pk", "nearest_train", "nearest_train_tanimoto", "nearest_train_pk",
        "domain", "warnings", "status",
    ]  # fmt: skip
    first = dict(zip(header, rows[0], strict=True))
    # row 12 of the set; it is its own neighbour
    assert (first["nearest_train"], first["nearest_train_tanimoto"]) == ("CCCCO", "1.000")
    assert float(first["nearest_train_pk"]) == 12.0
    assert (first["domain"], first["warnings"], first["status"]) == ("in", "", "ok")
    # every calibration error is 1, so the interval is 1 to either side
    middle = float(first["predicted_pk"])
    assert float(first["upper_pk"]) - middle == pytest.approx(1.0, abs=FOUR_DIGITS * middle)
    assert middle - float(first["lower_pk"]) == pytest.approx(1.0, abs=FOUR_DIGITS * middle)
    states = [row[-1] for row in rows]
    assert states[1:4] == ["ok", "fixed: left out Cl", "fixed: balanced charges (O-1 to none)"]
    assert states[4].startswith("invalid: '[Na+]' has no organic fragment")
    assert rows[4][1:-1] == [""] * 9
    assert rows[1][-2] == "1 stereocentre not stated"
    assert [row[-3] for row in (rows[1], rows[5])] == ["out", "out"]  # fluorine; quinone


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "CHUNK", 50)
    held = []
    real = predict._answers

    def counted(predictor, mols):
        held.append(len(mols))
        return real(predictor, mols)

    monkeypatch.setattr(predict, "_answers", counted)
    source = tmp_path / "in.smi"
    source.write_text("CCO x\n" * 230)
    predict_file(make_predictor(), source, tmp_path / "out.csv")
    assert held == [50, 50, 50, 50, 30]
    assert len(read(tmp_path / "out.csv")) == 231


def test_a_disk_that_fills_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predict, "_answers", full)
    source = write(tmp_path, "smiles\nCCO\n")
    with pytest.raises(DataError, match=r"cannot write .*out\.csv .*No space left"):
        predict_file(make_predictor(), source, tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == [source]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=200), kind=st.sampled_from(["csv", "smi", "sdf", "csv.gz"]))
def test_any_bytes_are_answered_or_refused(tmp_path, raw, kind):
    source, out = tmp_path / f"fuzz.{kind}", tmp_path / "fuzz_out.csv"
    source.write_bytes(b"smiles,x\nCCO,1\n" + raw if kind == "csv" else raw)
    out.unlink(missing_ok=True)
    try:
        counts = predict_file(make_predictor(), source, out)
    except DataError:
        assert kind != "csv"  # its first row can be read, whatever follows
        assert not out.exists()
        return
    header, *rows = read(out)
    assert header[-1] == "status"
    assert len(rows) == counts.total()
    assert kind != "csv" or rows[0][-1] == "ok"


def test_what_is_written_does_not_depend_on_the_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "CHUNK", 3)
    source = write(tmp_path, HOSTILE)
    texts, counts = [], []
    for n_job in (1, 2):
        out = tmp_path / f"out-{n_job}.csv"
        counts.append(predict_file(make_predictor(), source, out, n_job=n_job))
        texts.append(out.read_bytes())
    assert texts[0] == texts[1]
    assert counts[0] == counts[1]
    with pytest.raises(DataError, match=r"row 3 of in.csv"):
        predict_file(make_predictor(), source, tmp_path / "strict.csv", strict=True, n_job=2)
    assert not (tmp_path / "strict.csv").exists()
