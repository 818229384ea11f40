"""What another set says of the pairs of a table: none of its drugs is among this one's."""

from collections.abc import Sequence

import numpy as np
from rdkit import Chem, rdBase

from apps.chemistry.affinity.kernels import PairKernel, drug_kernel, sequence_kernel
from apps.chemistry.affinity.pairs import PairTable
from apps.chemistry.molecules import mol_from_smiles
from core.errors import DataError

OTHER = {"davis": "kiba", "kiba": "davis"}
_SKELETON = 14  # letters of an InChIKey that hash the connectivity: stereo and charge come after


def elsewhere_answers(table: PairTable, other: PairTable) -> np.ndarray:
    """Return what the values of `other` say of every pair of `table`.

    Drugs of `other` that are drugs of `table` too, in whatever stereo form or charge, are left out:
    a drug held out of `table` stays unknown. Proteins may stand in both.

    Returns
    -------
    ndarray, float64 [D, T]
        In the unit of `other`: the ridge of `PairKernel` on that set.

    Raises
    ------
    DataError
        If no drug of `other` is left.
    """
    ours = set(_skeletons(table.smiles))
    kept = [i for i, skeleton in enumerate(_skeletons(other.smiles)) if skeleton not in ours]
    if not kept:
        raise DataError(
            f"{table.name}: every drug of {other.name} is one of its own, so that set says nothing "
            "new; leave other_set off"
        )
    drug = drug_kernel([other.smiles[i] for i in kept], table.smiles)
    target = sequence_kernel([*other.sequence, *table.sequence])
    n_drug, n_target = len(kept), len(other.sequence)
    kernel = PairKernel(drug[:n_drug], target[:n_target, :n_target])
    return kernel.answers_of(other.value[kept], drug[n_drug:], target[n_target:, :n_target])


def _skeletons(smiles: Sequence[str]) -> list[str]:
    with rdBase.BlockLogs():
        return [Chem.MolToInchiKey(mol_from_smiles(text))[:_SKELETON] for text in smiles]
