"""What the kernel mix says of every molecule and task: further labels for a graph network.

A network that learns from a few hundred measured values also learns from the answers of a
stronger model at molecules that were measured for another task. Only training uses the kernel;
the network that comes of it reads graphs alone.
"""

from dataclasses import dataclass

import numpy as np

from apps.chemistry.baselines.kernel import fit_gaussian_process
from apps.chemistry.baselines.mix import MixKernel
from apps.chemistry.datasets import Table
from apps.chemistry.molecules import mol_from_smiles


@dataclass(frozen=True)
class Teacher:
    """The kernel mix between all molecules of a table that train any task.

    Parameters
    ----------
    molecule : int64 [row]
        Which molecule each row of the table is; rows of one SMILES share one.
    column : int64 [molecule]
        Column of the molecule in `kernel`, -1 for molecules that only test.
    kernel : float32 [column, column]
    """

    molecule: np.ndarray
    column: np.ndarray
    kernel: np.ndarray

    @classmethod
    def of(cls, table: Table) -> "Teacher":
        """Make the kernel of the molecules that have a row outside the test part."""
        names, molecule = np.unique(np.array(table.smiles, dtype=object), return_inverse=True)
        learns = np.unique(molecule[table.split != "test"])
        mols = [mol_from_smiles(names[i]) for i in learns]
        column = np.full(len(names), -1)
        column[learns] = np.arange(len(learns))
        return cls(molecule, column, MixKernel.of(mols).against(mols))

    def labels(self, table: Table) -> np.ndarray:
        """Return float32 [row, task]: the answer of a Gaussian process fitted to the train part.

        Parameters
        ----------
        table : Table
            The table of `of`, where other rows of the train and valid parts may be valid now.

        Returns
        -------
        ndarray
            NaN for rows that do not train, and where the molecule is a valid or test row of the
            task: what is to be predicted is not hinted at, not even by another model.
        """
        out = np.full(table.target.shape, np.nan, dtype=np.float32)
        trains = table.split == "train"
        column = self.column[self.molecule]
        for task in range(table.target.shape[1]):
            value = table.exact[:, task].astype(np.float64)
            fitted = np.nonzero(trains & np.isfinite(value))[0]
            if fitted.size < 2:
                continue
            among = self.kernel[:, column[fitted]]
            square = among[column[fitted]].astype(np.float64)
            model = fit_gaussian_process(square, value[fitted])
            answer = model.predict(among)
            judged = np.isfinite(table.target[:, task]) & ~trains
            hidden = np.isin(self.molecule, self.molecule[judged])
            rows = trains & ~hidden
            out[rows, task] = answer[column[rows]]
        return out
