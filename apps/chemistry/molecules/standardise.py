"""One form for each substance: salts stripped, charges balanced, and every change told."""

import re

from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

from apps.chemistry.molecules.read import mol_from_smiles
from core.errors import DataError

# H, B, C, N, O, F, Si, P, S, Cl, Se, Br, I: what ligands are made of.
_ORGANIC = frozenset({1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53})
# The same as questions to RDKit: a loop over atoms in Python takes as long as reading the SMILES.
_STRANGE = Chem.MolFromSmarts("[" + ";".join(f"!#{number}" for number in sorted(_ORGANIC)) + "]")
_UNCHARGER = rdMolStandardize.Uncharger()
_CARBON, _CHARGED = Chem.MolFromSmarts("[#6]"), Chem.MolFromSmarts("[!+0]")
# Stereocentres of carbon and pyrrole nitrogen: brackets that hold no charge and no metal.
_PLAIN_BRACKET = re.compile(r"\[(?:C@{1,2}H?|nH)\]")


def standardise(smiles: str, level: str = "parent") -> tuple[Chem.Mol, list[str]]:
    """Read a SMILES and bring the molecule to its standard form.

    Parameters
    ----------
    smiles : str
    level : str
        "none": as it stands. "fragment": metal salts come apart, the largest organic fragment
        stays. "parent": then charges that protons can balance are balanced, stereo is kept.
        "tautomer": then the canonical tautomer, stereo kept as well (some 10 ms a molecule).

    Returns
    -------
    mol : rdkit.Chem.Mol
        Sanitised.
    changes : list of str
        What was done, in words; empty where nothing was.

    Raises
    ------
    DataError
        If the SMILES cannot be read, no fragment is organic (salts only), or a metal stays.

    Examples
    --------
    >>> from rdkit import Chem
    >>> mol, changes = standardise("CC(=O)[O-].[Na+]")
    >>> Chem.MolToSmiles(mol), changes
    ('CC(=O)O', ['left out [Na+]', 'balanced charges (O-1 to none)'])
    """
    mol = mol_from_smiles(smiles)
    changes: list[str] = []
    if level == "none" or (level != "tautomer" and _is_plain(smiles)):
        return mol, changes
    try:
        with rdBase.BlockLogs():
            mol = _organic_fragment(mol, smiles, changes)
            if level != "fragment":
                mol = _balanced(mol, changes)
            if level == "tautomer":
                mol = _canonical_tautomer(mol, changes)
    except (Chem.MolSanitizeException, RuntimeError) as error:  # of a fragment, on its own
        raise DataError(f"{_shown(smiles)} cannot be standardised ({error}); drop it") from error
    if not changes:
        return mol, changes
    # once more through text: hydrogen counts, rings and stereo labels as of a molecule just read
    try:
        return mol_from_smiles(Chem.MolToSmiles(mol)), changes
    except DataError as error:
        raise DataError(
            f"{_shown(smiles)} is no molecule any more after standardisation "
            f"({', '.join(changes)}); drop it"
        ) from error


def _is_plain(smiles: str) -> bool:
    """Whether there is carbon and nothing to strip or balance, told from the text (fast)."""
    if "[" in smiles:
        smiles = _PLAIN_BRACKET.sub("C", smiles)
    if "[" in smiles or "." in smiles:
        return False
    return "c" in smiles or "C" in smiles.replace("Cl", "")


def _organic_fragment(mol: Chem.Mol, smiles: str, changes: list[str]) -> Chem.Mol:
    is_plain = _is_organic(mol)
    if not is_plain:
        loose = rdMolStandardize.MetalDisconnector().Disconnect(mol)
        if loose.GetNumBonds() < mol.GetNumBonds():
            changes.append("took bonds to metals apart")
            mol = loose
    # as molecules, and so checked for valence anew, only where that can change anything
    fragments = () if is_plain and "." not in smiles else Chem.GetMolFrags(mol, asMols=True)
    if len(fragments) > 1:
        texts = [Chem.MolToSmiles(fragment) for fragment in fragments]
        size = [(f.GetNumHeavyAtoms() if _has_carbon(f) else 0) for f in fragments]
        best = max(range(len(fragments)), key=lambda i: (size[i], texts[i]))
        dropped = ".".join(sorted(text for i, text in enumerate(texts) if i != best))
        changes.append(f"left out {dropped if len(dropped) <= 40 else dropped[:37] + '...'}")
        mol = fragments[best]
    if not _has_carbon(mol):
        raise DataError(f"{_shown(smiles)} has no organic fragment (salt or solvent); drop it")
    if not _is_organic(mol):
        strange = {a.GetSymbol() for a in mol.GetAtoms() if a.GetAtomicNum() not in _ORGANIC}
        raise DataError(
            f"{_shown(smiles)} holds {', '.join(sorted(strange))}, which no ligand model knows; "
            "drop it"
        )
    return mol


def _balanced(mol: Chem.Mol, changes: list[str]) -> Chem.Mol:
    if mol.HasSubstructMatch(_CHARGED):
        before = _charges(mol)
        mol = _UNCHARGER.uncharge(mol)
        if before != (after := _charges(mol)):
            changes.append(f"balanced charges ({before} to {after or 'none'})")
    return mol


def _canonical_tautomer(mol: Chem.Mol, changes: list[str]) -> Chem.Mol:
    enumerator = rdMolStandardize.TautomerEnumerator()
    enumerator.SetRemoveSp3Stereo(False)
    enumerator.SetRemoveBondStereo(False)
    out = enumerator.Canonicalize(mol)
    if Chem.MolToSmiles(out) != Chem.MolToSmiles(mol):
        changes.append("took the canonical tautomer")
    return out


def _charges(mol: Chem.Mol) -> str:
    charged = (a for a in mol.GetAtoms() if a.GetFormalCharge())
    return " ".join(sorted(f"{a.GetSymbol()}{a.GetFormalCharge():+d}" for a in charged))


def _has_carbon(mol: Chem.Mol) -> bool:
    has: bool = mol.HasSubstructMatch(_CARBON)
    return has


def _is_organic(mol: Chem.Mol) -> bool:
    return not mol.HasSubstructMatch(_STRANGE)


def _shown(smiles: str) -> str:
    return repr(smiles if len(smiles) <= 60 else smiles[:57] + "...")
