"""One door to every set: the embedded pocket, BACE, or a file of the user's."""

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem

from apps.chemistry.datasets import pocket
from apps.chemistry.datasets.graph_cache import cached_graphs
from apps.chemistry.datasets.read import Sheet, columns_text, read_sheet, read_targets
from apps.chemistry.datasets.split import carve_valid, split_molecules
from apps.chemistry.datasets.table import SPLITS, RowReport, Table
from apps.chemistry.datasets.values import merge_replicates
from apps.chemistry.molecules import featurise_many, mol_from_smiles, standardise
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
# BACE by the rule that parts it; a number draws one of the random scaffold splits.
BACE_SPLITS = {"gem": ("gem", 0), "deepchem": ("deepchem", 0)} | {
    f"scaffold-{i}": ("random_scaffold", i) for i in range(10)
}
_BACE = "bace/"
ACTIVE_FROM = 7.0  # pIC50: 1,496 of the 1,513 classes of BACE follow this rule
_TRUE_WORDS = frozenset({"1", "1.0", "true", "yes"})


def load_table(
    data: str = "pocket",
    *,
    smiles: str = "smiles",
    target: str | Sequence[str] = (),
    split_column: str | None = None,
    split: str = "gem",
    seed: int = 0,
    relation_column: str | None = None,
    unit: str = "",
    unit_column: str | None = None,
    standard: str = "auto",
) -> Table:
    """Read a set of molecules.

    Parameters
    ----------
    data : str
        "pocket" (the embedded model pocket), a registered set such as "bace" or
        "moleculeace/CHEMBL204_Ki" (see `apps.lab.datastore`), one of `BACE_SPLITS` such as
        "bace/deepchem", or a path to a file (`rows.open_rows`).
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
    relation_column, unit, unit_column : str, optional
        See `values.read_value`; the column of units stands above the one `unit`.
    standard : str
        Level of `molecules.standardise`. "auto" is "parent", with replicates merged, for a file,
        and "none" for the embedded and the registered sets, which are taken as published.

    Returns
    -------
    Table
        A 0/1 column `cliff_mol` becomes `extra["cliff_mol"]`; the pocket set has `held_out`,
        `pk_true` and `atom_pk` (object array of float64 [atom]); BACE has `active_published`
        (its column Class) and `active_repaired` (`ACTIVE_FROM`). Where rows of one molecule (in
        one split) were merged, `extra["spread"]` is the largest minus the smallest value.

    Raises
    ------
    DataError
        If the file or a column is missing, or no usable row is left.
    """
    if data == "pocket":
        return _pocket_table()
    path, is_bace = Path(data), data == "bace" or data.removeprefix(_BACE) in BACE_SPLITS
    if _is_file(data):
        about = {"name": path.name, "source": "file"}
    else:
        rule = data.removeprefix(_BACE)
        if is_bace and rule in BACE_SPLITS:
            split, seed = BACE_SPLITS[rule]
        item = fetch("bace" if is_bace else data)
        path = item.path
        about = {"name": data, "source": item.source}
        usual_target, usual_split = _REGISTERED.get(data.split("/")[0], ("", None))
        target = target or usual_target
        split_column = split_column or usual_split
    sheet = read_sheet(path)
    names = [target] if isinstance(target, str) else list(target)
    if not any(names):
        raise DataError(
            f"load_table: which column of {sheet.name} is the target? "
            f"It has {columns_text(sheet.header)}"
        )
    value, bound, reports = read_targets(
        sheet, names, relation_column=relation_column, unit=unit, unit_column=unit_column
    )
    level = standard_level(data, standard)
    rows = _usable_rows(sheet, smiles, value, split_column, level, reports)
    rows = rows._replace(rejected=[*sheet.rejected, *reports, *rows.rejected])
    if not rows.place:
        worst = "; ".join(str(report) for report in rows.rejected[:3])
        raise DataError(f"{sheet.name}: no usable row of {len(sheet.rows)} is left ({worst})")
    value, bound = value[rows.place], bound[rows.place]
    extra = {}
    if "cliff_mol" in sheet.header:
        words = sheet.cells("cliff_mol")
        extra["cliff_mol"] = np.array([words[i].lower() in _TRUE_WORDS for i in rows.place])
    if is_bace and names == ["pIC50"]:
        words = sheet.cells("Class")
        extra["active_published"] = np.array([words[i] in _TRUE_WORDS for i in rows.place])
        extra["active_repaired"] = value[:, 0] >= ACTIVE_FROM
    if level != "none":
        rows, value, bound, extra = _merged(rows, value, bound, extra, sheet, smiles)
    known = np.nan_to_num(np.nanmean(value, axis=1))
    number = np.array([sheet.number[i] for i in rows.place])
    cells = sheet.cells(smiles)
    texts = [cells[i] for i in rows.place]
    return Table(
        smiles=rows.smiles,
        graphs=cached_graphs(texts, rows.mols, about=level),
        target=value.astype(np.float32),
        split=_split(rows, known, sheet.name, split_column, split, seed, extra.get("cliff_mol")),
        row=number,
        target_names=names,
        unit=", ".join(names) if not (unit or unit_column) else f"pK ({', '.join(names)})",
        sha256=sheet.sha256,
        extra=extra,
        bound=bound if bound.any() else None,
        rejected=sorted(rows.rejected, key=lambda report: report.row),
        changed=sorted(rows.changed, key=lambda report: report.row),
        **about,
    )


def standard_level(data: str, standard: str) -> str:
    """Return the level of `molecules.standardise` that `load_table` uses."""
    if standard != "auto":
        return standard
    return "parent" if _is_file(data) else "none"


def _is_file(data: str) -> bool:
    return bool(Path(data).suffix) or os.path.isfile(data)


@functools.cache  # runs of one process share it
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


class _Usable(NamedTuple):
    """The rows of a sheet with a molecule, a value and a split."""

    place: list[int]
    """Where each stands in the sheet."""
    smiles: list[str]
    mols: list[Chem.Mol]
    part: list[str]
    """train, valid or test; empty without a split column."""
    rejected: list[RowReport]
    changed: list[RowReport]


def _usable_rows(
    sheet: Sheet,
    smiles: str,
    value: np.ndarray,
    split_column: str | None,
    level: str,
    reports: list[RowReport],
) -> _Usable:
    rows = _Usable([], [], [], [], [], [])
    texts = sheet.cells(smiles)
    words = sheet.cells(split_column) if split_column is not None else None
    reported = {report.row for report in reports}
    for i, row in enumerate(sheet.number):
        if words is not None and words[i].lower() not in _SPLIT_WORDS:
            reason = f"{words[i]!r} is none of train, valid, test"
            rows.rejected.append(RowReport(row, str(split_column), words[i], reason))
        elif np.isnan(value[i]).all():
            if row not in reported:
                rows.rejected.append(RowReport(row, "", "", "no value"))
        else:
            try:
                mol, changes = standardise(texts[i], level)
            except DataError as error:
                rows.rejected.append(RowReport(row, smiles, texts[i], str(error)))
                continue
            if changes:
                rows.changed.append(RowReport(row, smiles, texts[i], "; ".join(changes)))
            rows.place.append(i)
            rows.smiles.append(Chem.MolToSmiles(mol) if changes else texts[i])
            rows.mols.append(mol)
            rows.part.append("" if words is None else _SPLIT_WORDS[words[i].lower()])
    return rows


def _merged(
    rows: _Usable,
    value: np.ndarray,
    bound: np.ndarray,
    extra: dict[str, np.ndarray],
    sheet: Sheet,
    smiles: str,
) -> tuple[_Usable, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Merge the rows of one molecule in one split; the first row stands for all."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, (mol, part) in enumerate(zip(rows.mols, rows.part, strict=True)):
        groups.setdefault((Chem.MolToSmiles(mol), part), []).append(i)
    if len(groups) == len(rows.place):
        return rows, value, bound, extra
    kept, spread = [], []
    for group in groups.values():
        first = group[0]
        if len(group) > 1:
            each = [
                merge_replicates(v, b) for v, b in zip(value[group].T, bound[group].T, strict=True)
            ]
            value[first], bound[first] = [e[0] for e in each], [e[1] for e in each]
            numbers = ", ".join(str(sheet.number[rows.place[i]]) for i in group[1:])
            row, text = sheet.number[rows.place[first]], rows.smiles[first]
            if np.isnan(value[first]).all():
                reason = f"bounds contradict each other (rows {row}, {numbers})"
                rows.rejected.append(RowReport(row, smiles, text, reason))
                continue
            largest = max(e[2] for e in each)
            reason = f"the same molecule as row {numbers}: merged, spread {largest:.3g}"
            rows.changed.append(RowReport(row, smiles, text, reason))
            spread.append(largest)
        else:
            spread.append(0.0)
        kept.append(first)
    rows = rows._replace(
        place=[rows.place[i] for i in kept],
        smiles=[rows.smiles[i] for i in kept],
        mols=[rows.mols[i] for i in kept],
        part=[rows.part[i] for i in kept],
    )
    extra = {name: column[kept] for name, column in extra.items()} | {"spread": np.array(spread)}
    return rows, value[kept], bound[kept], extra


def _split(
    rows: _Usable,
    target: np.ndarray,
    name: str,
    split_column: str | None,
    rule: str,
    seed: int,
    flag: np.ndarray | None,
) -> np.ndarray:
    if split_column is None:
        try:
            return split_molecules(rows.mols, rule, seed=seed)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    split = np.array(rows.part)
    if not (split == "train").any():
        raise DataError(f"{name}: column {split_column!r} marks no row as 'train'")
    if not (split == "valid").any():
        split = carve_valid(split, target, seed=seed, flag=flag)
    return split
