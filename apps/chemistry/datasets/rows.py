"""Files of molecules as a stream of rows: delimited text, SMI and SDF, plain or gzip.

Every format becomes the same thing, a header and rows of text cells, one at a time, so that a
file of millions is read in constant memory. A row that cannot be read says why and stays in its
place.
"""

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from rdkit import Chem, rdBase

from core.errors import DataError

DELIMITERS = ",;\t|"
_SMI, _SDF = (".smi", ".ism"), (".sdf", ".sd")
EMPTY = "the row is empty"  # the one problem that is nobody's mistake
SMILES = "smiles"  # name of the SMILES column of a format without a header


class Row(NamedTuple):
    """One row of a file."""

    number: int
    """Row number, the header being row 1; in SMI the line, in SDF the record, from 1."""
    cells: list[str]
    """As many as the header has, unless there is a `problem`."""
    problem: str
    """Why the row cannot be read; empty where it can."""


class Rows(NamedTuple):
    """An open file of molecules."""

    name: str
    header: list[str]
    rows: Iterator[Row]


@contextmanager
def open_rows(path: Path) -> Iterator[Rows]:
    """Open a file of molecules and read its header.

    Parameters
    ----------
    path : Path
        ``.smi``/``.ism`` (SMILES and a name, no header: columns "smiles" and "name"),
        ``.sdf``/``.sd`` (columns "smiles" and every data field), anything else delimited text
        with a header (comma, semicolon, tab, bar, or blanks where there is none of them); with
        ``.gz`` behind it compressed. UTF-8, undecodable bytes are replaced.

    Raises
    ------
    DataError
        If the file is missing, empty, or ends in the middle of its compressed data.
    """
    kind = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    with ExitStack() as stack:
        with _told(path):
            text = stack.enter_context(_text(path))
            if kind in _SMI:
                header, rows = [SMILES, "name"], _smi_rows(text)
            elif kind in _SDF:
                with _text(path) as first:
                    names = list(dict.fromkeys(n for r in _records(first) for n in _fields(r)))
                header, rows = [SMILES, *names], _sdf_rows(text, names)
            else:
                header, rows = _delimited(text)
        if not any(header):
            raise DataError(
                f"{path.name}: the file is empty; expected a header and at least one row"
            )
        yield Rows(path.name, header, _guarded(rows, path))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading `path` into a sentence."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the name and the file") from error


def _guarded(rows: Iterator[Row], path: Path) -> Iterator[Row]:
    while True:
        with _told(path):
            row = next(rows, None)
        if row is None:
            return
        yield row


def _text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _delimited(text: Iterable[str]) -> tuple[list[str], Iterator[Row]]:
    lines = (line.replace("\0", "") for line in text)
    n_blank, first = 0, ""
    for line in lines:
        if line.strip():
            first = line
            break
        n_blank += 1
    delimiter = max(DELIMITERS, key=first.count)
    if first.count(delimiter) == 0 and len(first.split()) > 1:
        delimiter = " "
    reader = csv.reader(
        itertools.chain([first], lines), delimiter=delimiter, skipinitialspace=delimiter == " "
    )
    header = [cell.strip() for cell in next(reader, [])]
    return header, _cells(reader, len(header), n_blank + 2)


def _cells(reader: Iterator[list[str]], n_column: int, number: int) -> Iterator[Row]:
    for n in itertools.count(number):
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(n, [], f"not readable as a row ({error})")
            continue
        if not cells:
            yield Row(n, cells, EMPTY)
        else:
            fits = len(cells) == n_column
            yield Row(n, cells, "" if fits else f"{len(cells)} cells, the header has {n_column}")


def _smi_rows(text: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(text, start=1):
        smiles, _, name = line.strip().replace("\t", " ").partition(" ")
        if smiles and not (number == 1 and smiles.lower() == SMILES):
            yield Row(number, [smiles, name.strip()], "")


def _records(text: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines of each record; the last may lack its end mark."""
    record: list[str] = []
    for line in text:
        line = line.rstrip("\r\n")
        if line.startswith("$$$$"):
            yield record
            record = []
        else:
            record.append(line)
    if any(line.strip() for line in record):
        yield record


def _fields(record: list[str]) -> dict[str, str]:
    """Return the data fields of a record, the lines of each joined by a blank."""
    fields: dict[str, str] = {}
    name = ""
    for line in record:
        if line.startswith(">") and "<" in line:
            name = line.split("<", 1)[1].rsplit(">", 1)[0].strip()
            fields[name] = ""
        elif not line.strip():
            name = ""
        elif name:
            fields[name] = f"{fields[name]} {line.strip()}".strip()
    return fields


def _sdf_rows(text: Iterable[str], names: list[str]) -> Iterator[Row]:
    for number, record in enumerate(_records(text), start=1):
        fields = _fields(record)
        with rdBase.BlockLogs():
            # RDKit raises for some broken records and returns None for others
            try:
                mol = Chem.MolFromMolBlock("\n".join(record))
                smiles, problem = (Chem.MolToSmiles(mol), "") if mol is not None else ("", "")
            except (RuntimeError, ValueError) as error:
                mol, smiles, problem = None, "", str(error).strip().split("\n")[0]
        if mol is None:
            problem = f"the record is no molecule that can be read ({problem or 'bad structure'})"
        yield Row(number, [smiles, *(fields.get(name, "") for name in names)], problem)
