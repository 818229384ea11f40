"""SMILES to molecule, with the reason when it cannot be done."""

from rdkit import Chem, rdBase

from core.errors import DataError

MAX_ATOM = 500  # heavy atoms; larger ones are polymers, peptides or mistakes, not ligands

_NOT_ASCII = "it holds a character that is not ASCII"


def mol_from_smiles(smiles: str) -> Chem.Mol:
    """Return the sanitised molecule without explicit hydrogen atoms.

    Parameters
    ----------
    smiles : str
        One molecule; several fragments (a salt) are kept as they stand.

    Returns
    -------
    rdkit.Chem.Mol

    Raises
    ------
    DataError
        If the text is empty, is no SMILES, breaks valence or aromaticity, holds a wildcard atom
        or more than `MAX_ATOM` heavy atoms.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        reason = "" if mol is not None else _why_not(smiles)
    if mol is not None:
        if "\n" in smiles or "\r" in smiles:  # RDKit takes what follows for a name
            reason = "it is broken by a line end"
        elif not smiles.split(" ", 1)[0].isascii():  # RDKit reads such text up to the character
            reason = _NOT_ASCII
        elif mol.GetNumAtoms() == 0:
            reason = "it holds no atom"
        elif mol.GetNumAtoms() > MAX_ATOM:
            reason = f"it has {mol.GetNumAtoms():,} heavy atoms, at most {MAX_ATOM} are read"
        elif "*" in smiles and any(atom.GetAtomicNum() == 0 for atom in mol.GetAtoms()):
            reason = "it holds a wildcard atom '*'"
    if reason:
        shown = smiles if len(smiles) <= 60 else smiles[:57] + "..."
        raise DataError(f"{shown!r} is not a SMILES that can be read ({reason}); fix or drop it")
    return mol


def _why_not(smiles: str) -> str:
    """Say in words why RDKit refuses `smiles`."""
    mol = Chem.MolFromSmiles(smiles, sanitize=False)
    if mol is not None:
        problems = Chem.DetectChemistryProblems(mol)
        return problems[0].Message().lower() if problems else "it fails sanitisation"
    if not smiles.isascii():
        return _NOT_ASCII
    for opening, closing in ("()", "[]"):
        if smiles.count(opening) != smiles.count(closing):
            return f"{smiles.count(opening)} '{opening}' but {smiles.count(closing)} '{closing}'"
    open_ring = _open_ring(smiles)
    return f"ring {open_ring} never closes" if open_ring else "syntax error"


def _open_ring(smiles: str) -> str:
    """Return the label of a ring bond that is opened and not closed, or an empty string."""
    is_open: dict[str, bool] = {}
    i, in_bracket = 0, False
    while i < len(smiles):
        char, n_char = smiles[i], 1
        if char in "[]":
            in_bracket = char == "["
        elif not in_bracket and (char.isdigit() or char == "%"):
            n_char = 3 if char == "%" else 1
            label = smiles[i : i + n_char].lstrip("%")
            is_open[label] = not is_open.get(label, False)
        i += n_char
    return next((label for label, still in is_open.items() if still), "")
