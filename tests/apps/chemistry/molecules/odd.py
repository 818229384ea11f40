"""Molecules that are rare, each for another reason, and sets of common ones."""

from rdkit import Chem

from apps.chemistry.datasets import load_table

ODD = [
    "C", "[H][H]", "[2H]C([2H])O", "[3H]C([3H])([3H])Oc1cc(I)c(OC)cc1", "[13CH4]", "[Na+].[Cl-]",
    "C[NH]C=O", "[CH2]C", "O=[N+]([O-])c1ccccc1", "C[S](=O)(=O)N", "CP(=O)(O)O", "N#N",
    "[O-][Cl+3]([O-])([O-])[O-]", "C/C=C/C", r"C/C=C\C(=O)O", "[C-]#[O+]", "F[Si](F)(F)F", "C1CC1",
    "C1CC2CC1C2", "C12C3C4C1C5C2C3C45", "[nH]1cccc1", "[SeH2]", "B(O)(O)c1ccccc1", "c1cc[o+]cc1",
    "C12=C3C=CC1=CC=C2C=C3", "[NH3]->[Pt](Cl)(Cl)<-[NH3]", "[CH3:1][OH:2]", "[Fe]", "[U]",
    "CC[At]", "C1CCCCCCCCCCC1", "CN=[N+]=[N-]", "[H]/N=C/C", "S(F)(F)(F)(F)(F)F", "CC1(C)CC12CC2",
    "C1CC1C2CC2", "CC(=O)C", "CN(C)c1cncc(Br)c1",
    "CN(C)C(=[NH2+])N", "OC(=O)C[NH2+]C", "Cc1ncc[nH]1", "c1ccsc1C(=S)N", "CC(=O)[O-]", "CS(=O)O",
    "C" * 260, "C1" + "C" * 300 + "1", "CC(=O)" + "NCC(=O)" * 40 + "O",
]  # fmt: skip


def molecules() -> list[Chem.Mol]:
    """Return the odd ones, and every fifth one of the embedded set in an unusual order of atoms."""
    pocket = [Chem.MolFromSmiles(text) for text in load_table("pocket").smiles[::5]]
    turned = [Chem.MolToRandomSmilesVect(mol, 1, 7)[0] for mol in pocket]
    return [Chem.MolFromSmiles(text) for text in (*ODD, *turned)]
