"""Every format gives the same rows; broken ones keep their place and say why."""

import gzip

import pytest
from rdkit import Chem

from apps.chemistry.datasets.rows import open_rows
from core.errors import DataError


def rows_of(path):
    with open_rows(path) as opened:
        return opened.header, list(opened.rows)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("packed", [False, True])
def test_any_delimiter_plain_or_packed(tmp_path, delimiter, packed):
    text = "\n\nsmiles,pk\nCCO,1.5\nC,2,3\n\nCCN,2.5\n".replace(",", delimiter).encode()
    path = tmp_path / ("a.txt.gz" if packed else "a.txt")
    path.write_bytes(gzip.compress(text) if packed else text)
    header, rows = rows_of(path)
    assert header == ["smiles", "pk"]
    assert rows == [
        (4, ["CCO", "1.5"], ""),
        (5, ["C", "2", "3"], "3 cells, the header has 2"),
        (6, [], "the row is empty"),
        (7, ["CCN", "2.5"], ""),
    ]


def test_smi_has_no_header(tmp_path):
    path = tmp_path / "a.smi"
    path.write_text("CCO ethanol (grain)\n\nC1CC\tbroken\nCCN\n")
    assert rows_of(path) == (
        ["smiles", "name"],
        [(1, ["CCO", "ethanol (grain)"], ""), (3, ["C1CC", "broken"], ""), (4, ["CCN", ""], "")],
    )


def test_sdf_records_with_fields_and_broken_ones(tmp_path):
    def record(smiles, **fields):
        block = Chem.MolToMolBlock(Chem.MolFromSmiles(smiles))
        return block + "".join(f">  <{k}>\n{v}\n\n" for k, v in fields.items()) + "$$$$\n"

    whole = record("C[C@H](N)C(=O)O", pk="6.1", note="two\nlines")
    broken = "\n".join(record("CCO", pk="7").split("\n")[:5]) + "\n>  <pk>\n7\n\n$$$$\n"
    path = tmp_path / "a.sdf"
    path.write_text(whole + broken + record("CCN", id="x").replace("$$$$\n", ""))
    header, rows = rows_of(path)
    assert header == ["smiles", "pk", "note", "id"]
    assert rows[0] == (1, ["C[C@H](N)C(=O)O", "6.1", "two lines", ""], "")
    assert rows[1].number == 2
    assert rows[1].problem.startswith("the record is no molecule that can be read (")
    assert rows[1].cells[1] == "7"
    assert rows[2] == (3, ["CCN", "", "", "x"], "")


def test_refuses(tmp_path):
    (tmp_path / "empty.csv").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty\.csv: the file is empty"):
        rows_of(tmp_path / "empty.csv")
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(b"smiles\n" + b"CCO\n" * 999)[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        rows_of(cut)
    whole = bytearray(gzip.compress(b"smiles\n" + bytes(range(32, 127)) * 9))
    whole[20:40] = bytes(20)  # damaged in the middle: the decompressor's own error
    cut.write_bytes(whole)
    with pytest.raises(DataError, match="cannot be read"):
        rows_of(cut)
    with pytest.raises(DataError, match=r"no\.csv: cannot be read"):
        rows_of(tmp_path / "no.csv")


def test_an_error_of_the_reader_is_not_blamed_on_the_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("smiles\nCCO\n")

    def read_and_fail():
        with open_rows(path) as opened:
            next(opened.rows)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        read_and_fail()
