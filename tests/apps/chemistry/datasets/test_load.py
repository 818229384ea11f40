"""Reading hostile files: each bad row is reported by number and reason, the others stay."""

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.chemistry.datasets import join_tables, load_table
from apps.chemistry.datasets.read import read_sheet
from core.errors import DataError

FLOAT32 = 1e-6  # targets are float32: half a unit in the last place is 6e-8, relative
GOOD = """smiles,pk,part,cliff_mol
CCO,1.5,train,0
CCN,2.5,train,1
CCC,3.5,Validation,0
CCF,4.5,test,1
"""


@pytest.fixture
def write(tmp_path):
    def _write(text, name="set.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return _write


def test_good_file(write):
    table = load_table(write(GOOD), target="pk", split_column="part")
    assert table.smiles == ["CCO", "CCN", "CCC", "CCF"]
    assert table.target.tolist() == [[1.5], [2.5], [3.5], [4.5]]
    assert table.target.dtype == np.float32
    assert table.split.tolist() == ["train", "train", "valid", "test"]
    assert table.row.tolist() == [2, 3, 4, 5]
    assert table.extra["cliff_mol"].tolist() == [False, True, False, True]
    assert (table.name, table.unit, table.source) == ("set.csv", "pk", "file")
    assert len(table.sha256) == 64
    test = table.select("test")
    assert (test.smiles, len(test), test.extra["cliff_mol"].tolist()) == (["CCF"], 1, [True])
    with pytest.raises(DataError, match=r"split must be one of .* got 'val'"):
        table.select("val")


def test_bad_rows_are_reported_and_cost_nobody_else(write):
    text = (
        "smiles;pk;part\n"
        "CCO;1.0;train\n"
        "C1CC;2.0;train\n"  # row 3: ring
        "CCN;high;train\n"  # row 4: no number
        "CCC;;train\n"  # row 5: no value
        "CCF;inf;train\n"  # row 6: not finite
        "CCCl;3.0\n"  # row 7: short
        "CCBr;4.0;holdout\n"  # row 8: split
        "\n"  # row 9: blank, no report
        "CCI;5.0;val\n"
        "CCS;6.0;test\n"
    )
    table = load_table(write(text), target="pk", split_column="part")
    assert table.smiles == ["CCO", "CCI", "CCS"]
    assert table.row.tolist() == [2, 10, 11]
    reasons = {report.row: report.reason for report in table.rejected}
    assert list(reasons) == [3, 4, 5, 6, 7, 8]
    assert "ring 1 never closes" in reasons[3]
    assert reasons[4] == "'high' is not a number"
    assert reasons[5] == "no value"
    assert reasons[6] == "'inf' is not finite"
    assert reasons[7] == "2 cells, the header has 3"
    assert reasons[8] == "'holdout' is none of train, valid, test"
    assert str(table.rejected[1]) == "row 4, column 'pk': 'high' is not a number"


def test_several_tasks_keep_rows_with_one_value(write):
    text = "smiles,a,b\n" + "".join(
        f"{'C' * i}O,{i if i % 2 else ''},{'nan' if i % 3 else i}\n" for i in range(1, 40)
    )
    table = load_table(write(text), target=["a", "b"], split="random")
    kept = [i for i in range(1, 40) if i % 2 or i % 3 == 0]
    assert len(table) == len(kept)
    assert np.isnan(table.target[:, 0]).tolist() == [i % 2 == 0 for i in kept]
    assert np.isnan(table.target[:, 1]).tolist() == [i % 3 != 0 for i in kept]
    assert table.target_names == ["a", "b"]


def test_validation_rows_are_carved_when_the_file_has_none(write):
    text = "smiles,pk,split\n" + "".join(
        f"{'C' * (i % 20 + 1)}{'NOFS'[i % 4]},{i},{'test' if i % 5 == 0 else 'train'}\n"
        for i in range(100)
    )
    path = write(text)
    options = {"target": "pk", "split_column": "split", "seed": 1, "standard": "none"}
    table = load_table(path, **options)
    assert [(table.split == part).sum() for part in ("train", "valid", "test")] == [72, 8, 20]
    again = load_table(path, **options)
    assert (again.split == table.split).all()


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("", {}, "set.csv: the file is empty; expected a header and at least one row"),
        ("smiles,pk\n", {}, "no row below the header"),
        (GOOD, {"smiles": "smile"}, r"no column 'smile'; it has 'smiles', 'pk'.*mean 'smiles'\?"),
        (GOOD, {"target": "pIC50"}, "no column 'pIC50'; it has 'smiles', 'pk', 'part'"),
        (GOOD, {"target": ()}, "which column of set.csv is the target"),
        (GOOD, {"split_column": "fold"}, "no column 'fold'"),
        ("smiles,pk,pk\nC,1,2\n", {}, "column 'pk' stands 2 times in the header"),
        ("smiles,pk\nC1,1\nxx,2\n", {}, "no usable row of 2 is left .*ring 1 never closes"),
        ("smiles,pk,part\nC,1,test\n", {"split_column": "part"}, "marks no row as 'train'"),
    ],
)
def test_unusable_files_say_why(write, text, options, sentence):
    with pytest.raises(DataError, match=sentence):
        load_table(write(text), **({"target": "pk"} | options))


def test_concentrations_relations_and_replicates(write):
    # 1 uM is a pK of 6, 10 nM one of 8; "> 10 uM" means a pK below 5
    text = (
        "smiles\tvalue\tunit\tsign\tpart\n"
        "CCO\t1\tuM\t=\ttrain\n"
        "OCC\t10\tnM\t\ttrain\n"  # row 3: the same molecule
        "CCN\t>10\t\u00b5M\t\ttrain\n"  # row 4: micro sign, relation in the cell
        "CCNC\t1\tnM\t<\ttrain\n"
        "CCC\t0\tnM\t=\ttrain\n"  # row 6: no logarithm
        "CCCC\t5\tstone\t=\ttrain\n"  # row 7
        "CCS\t5\tnM\t?\ttrain\n"  # row 8
        "CCF\t7.5\tpIC50\t\tvalid\n"
        "OCC\t100\tnM\t\ttest\n"  # a row of another part is not merged
        "CCCl\t5\tnM\t>\ttrain\nClCC\t7\tnM\t<\ttrain\n"  # rows 11, 12 contradict
    )
    table = load_table(
        write(text),
        target="value",
        split_column="part",
        unit_column="unit",
        relation_column="sign",
    )
    assert table.smiles == ["CCO", "CCN", "CCNC", "CCF", "OCC"]
    np.testing.assert_allclose(table.target[:, 0], [7.0, 5.0, 9.0, 7.5, 7.0], rtol=FLOAT32)
    assert table.bound[:, 0].tolist() == [0, -1, 1, 0, 0]
    assert np.isnan(table.exact[:, 0]).tolist() == [False, True, True, False, False]
    np.testing.assert_allclose(table.extra["spread"], [2.0, 0, 0, 0, 0], rtol=FLOAT32)
    reasons = {report.row: report.reason for report in table.rejected}
    assert reasons == {
        6: "'0' nM has no logarithm; a concentration is above 0",
        7: "unit 'stone' is none of pM, nM, uM, mM, M, pK",
        8: "relation '?' is none of =, <, >",
        11: "bounds contradict each other (rows 11, 12)",
    }
    assert [(r.row, r.reason) for r in table.changed] == [
        (2, "the same molecule as row 3: merged, spread 2")
    ]


def test_salts_metals_and_giants_are_told_and_cost_nobody_the_others(write):
    text = (
        "smiles,pk\n"
        "CCO,1\n"
        f"{'C' * 1000},2\n"
        "[Na+].[Cl-],3\n"
        "N[Pt](N)(Cl)Cl,4\n"
        "CC(=O)[O-].[Na+],5\n"
        "C\u00d6,6\n"
        ",7\n"
        "C[N+](C)(C)C,-inf\n" + "".join(f"{'C' * i}N,{i}\n" for i in range(2, 30))
    )
    table = load_table(write(text), target="pk", split="random")
    assert table.smiles[:2] == ["CCO", "CC(=O)O"]
    assert len(table) == 2 + 28
    reasons = {report.row: report.reason for report in table.rejected}
    assert list(reasons) == [3, 4, 5, 7, 8, 9]
    assert "1,000 heavy atoms" in reasons[3]
    assert "no organic fragment" in reasons[4]
    assert "not ASCII" in reasons[7]
    assert [(r.row, r.reason) for r in table.changed] == [
        (6, "left out [Na+]; balanced charges (O-1 to none)")
    ]


def test_files_of_several_targets_are_stacked_with_a_task_each(write):
    a = load_table(write(GOOD, "a.csv"), target="pk", split_column="part")
    b = load_table(write(GOOD.replace("CCC,3.5", "CCC,>3.5"), "b.csv"), target="pk",
                   split_column="part")  # fmt: skip
    both = join_tables([a, b])
    assert both.target_names == ["a.csv", "b.csv"]
    nan = np.nan
    expected = [[1.5, nan], [2.5, nan], [3.5, nan], [4.5, nan],
                [nan, 1.5], [nan, 2.5], [nan, 3.5], [nan, 4.5]]  # fmt: skip
    np.testing.assert_array_equal(both.target, np.float32(expected))
    assert both.bound[6].tolist() == [0, 1]
    assert both.split.tolist() == a.split.tolist() * 2
    assert both.extra["cliff_mol"].tolist() == a.extra["cliff_mol"].tolist() * 2
    assert join_tables([a]) is a


def test_missing_file_and_unknown_set(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_table(str(tmp_path / "absent.csv"), target="pk")
    with pytest.raises(DataError, match=r"no data set is named 'bacee'.*'bace'"):
        load_table("bacee")


def test_gzip_tab_and_byte_order_mark(write):
    text = GOOD.replace(",", "\t").encode("utf-8-sig")
    table = load_table(write(gzip.compress(text), "set.tsv.gz"), target="pk", split_column="part")
    assert len(table) == 4
    with pytest.raises(DataError, match="cannot be read"):
        load_table(write(gzip.compress(text)[:-9], "cut.csv.gz"), target="pk")


def test_pocket_is_embedded():
    table = load_table("pocket")
    assert (table.name, table.source) == ("model pocket", "embedded")
    assert len(table) == 2600
    assert set(table.extra) == {"held_out", "pk_true", "atom_pk"}
    for graph, share in zip(table.graphs, table.extra["atom_pk"], strict=True):
        assert graph.n_atom == len(share)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path, raw):
    path = tmp_path / "fuzz.csv"
    path.write_bytes(b"smiles,pk\nCCO,1\n" + raw)
    sheet = read_sheet(path)
    assert all(len(row) == len(sheet.header) for row in sheet.rows)
    table = (
        load_table(str(path), target="pk", split_column=None, split="random")
        if (len(sheet.rows) > 20)
        else None
    )
    assert table is None or len(table) >= 1
