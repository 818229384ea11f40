"""One door to every set: the embedded pocket, BACE, or a file of the user's."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.chemistry.datasets import pocket
from apps.chemistry.datasets.read import Sheet, read_numbers, read_sheet
from apps.chemistry.datasets.split import carve_valid, split_molecules
from apps.chemistry.datasets.table import SPLITS, RowReport, Table
from apps.chemistry.molecules import featurise_many, mol_from_smiles
from apps.lab.datastore import fetch
from core.errors import DataError

_SPLIT_WORDS = {part: part for part in SPLITS} | {
    "training": "train",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "testing": "test",
}
# Columns of registered sets: what to predict and who is tested, unless the caller says otherwise.
_REGISTERED: dict[str, tuple[str, str | None]] = {
    "bace": ("pIC50", None),
    "moleculeace": ("y [pEC50/pKi]", "split"),
}
_TRUE_WORDS = frozenset({"1", "1.0", "true", "yes"})


def load_table(
    data: str = "pocket",
    *,
    smiles: str = "smiles",
    target: str | Sequence[str] = (),
    split_column: str | None = None,
    split: str = "gem",
    seed: int = 0,
) -> Table:
    """Read a set of molecules.

    Parameters
    ----------
    data : str
        "pocket" (the embedded model pocket), a registered set such as "bace" or
        "moleculeace/CHEMBL204_Ki" (see `apps.lab.datastore`), or a path to a CSV file.
    smiles : str
        Column with SMILES.
    target : str or sequence of str
        Column or columns to predict; a registered set knows its own, a file has no default.
    split_column : str, optional
        Column with train, valid and test. Without "valid", a tenth of the training rows is taken
        for it, evenly over the target (and over `cliff_mol` where present).
    split : str
        Rule used without a split column, see `split_molecules`.
    seed : int
        Seeds the random rules and the draw of validation rows. The pocket set is one fixed set,
        whatever the seed.

    Returns
    -------
    Table
        A 0/1 column `cliff_mol` becomes `extra["cliff_mol"]`; the pocket set has `held_out`,
        `pk_true` and `atom_pk` (object array of float64 [atom]).

    Raises
    ------
    DataError
        If the file or a column is missing, or no usable row is left.
    """
    if data == "pocket":
        return _pocket_table()
    path = Path(data)
    if path.suffix or path.is_file():
        about = {"name": path.name, "source": "file"}
    else:
        item = fetch(data)
        path = item.path
        about = {"name": data, "source": item.source}
        usual_target, usual_split = _REGISTERED.get(data.split("/")[0], ("", None))
        target = target or usual_target
        split_column = split_column or usual_split
    sheet = read_sheet(path)
    names = [target] if isinstance(target, str) else list(target)
    if not any(names):
        raise DataError(
            f"load_table: which column of {sheet.name} is the target? It has {sheet.columns_text()}"
        )
    return _table_from_sheet(
        sheet,
        smiles=smiles,
        names=names,
        split_column=split_column,
        rule=split,
        seed=seed,
        about=about | {"unit": ", ".join(names), "sha256": sheet.sha256},
    )


def _pocket_table() -> Table:
    drawn = pocket.generate()
    atom_pk = np.empty(len(drawn.ligands), dtype=object)
    atom_pk[:] = [ligand.atom_pk for ligand in drawn.ligands]
    return Table(
        name=pocket.NAME,
        smiles=[ligand.smiles for ligand in drawn.ligands],
        graphs=featurise_many([mol_from_smiles(ligand.smiles) for ligand in drawn.ligands]),
        target=drawn.pk[:, None].astype(np.float32),
        split=drawn.split,
        row=np.arange(2, len(drawn.ligands) + 2),
        target_names=["pk"],
        unit=pocket.UNIT,
        sha256=hashlib.sha256(drawn.csv_text().encode()).hexdigest(),
        source="embedded",
        extra={
            "held_out": drawn.held_out,
            "pk_true": np.array([ligand.pk for ligand in drawn.ligands]),
            "atom_pk": atom_pk,
        },
    )


def _table_from_sheet(
    sheet: Sheet,
    *,
    smiles: str,
    names: list[str],
    split_column: str | None,
    rule: str,
    seed: int,
    about: dict[str, str],
) -> Table:
    place = sheet.column(smiles)
    values, reports = read_numbers(sheet, names)
    parts = None if split_column is None else sheet.column(split_column)
    rejected = [*sheet.rejected, *reports]
    kept, mols = [], []
    for i, (cells, row) in enumerate(zip(sheet.rows, sheet.number, strict=True)):
        if parts is not None and cells[parts].strip().lower() not in _SPLIT_WORDS:
            reason = f"{cells[parts]!r} is none of train, valid, test"
            rejected.append(RowReport(row, str(split_column), cells[parts], reason))
        elif all(np.isnan(values[i])):
            if not any(report.row == row for report in reports):
                rejected.append(RowReport(row, ", ".join(names), "", "no value"))
        else:
            try:
                mols.append(mol_from_smiles(cells[place].strip()))
                kept.append(i)
            except DataError as error:
                rejected.append(RowReport(row, smiles, cells[place], str(error)))
    if not kept:
        worst = "; ".join(str(report) for report in rejected[:3])
        raise DataError(f"{sheet.name}: no usable row of {len(sheet.rows)} is left ({worst})")
    y = np.array([values[i] for i in kept], dtype=np.float64)
    extra = {}
    if "cliff_mol" in sheet.header:
        flag = sheet.column("cliff_mol")
        extra["cliff_mol"] = np.array(
            [sheet.rows[i][flag].strip().lower() in _TRUE_WORDS for i in kept]
        )
    if parts is None:
        split = split_molecules(mols, rule, seed=seed)
    else:
        split = np.array([_SPLIT_WORDS[sheet.rows[i][parts].strip().lower()] for i in kept])
        if not (split == "train").any():
            raise DataError(f"{sheet.name}: column {split_column!r} marks no row as 'train'")
        if not (split == "valid").any():
            mean = np.nanmean(y, axis=1)
            split = carve_valid(split, mean, seed=seed, flag=extra.get("cliff_mol"))
    return Table(
        smiles=[sheet.rows[i][place].strip() for i in kept],
        graphs=featurise_many(mols),
        target=y.astype(np.float32),
        split=split,
        row=np.array([sheet.number[i] for i in kept]),
        target_names=names,
        extra=extra,
        rejected=sorted(rejected, key=lambda report: report.row),
        **about,
    )
