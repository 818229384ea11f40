"""What bounds the area under the curve on BACE, and what learning its classes is worth.

`python -m benchmarks.chemistry_classes [SET ...]`: for each split the area of the kernel mix, of it
and a Gaussian process on the classes of the training part (equal parts, each over its spread among
the training molecules), and of the measured values themselves, which no model can better; with the
standard error of the first over resampled test molecules. The sets need $TESSERA_DATA_DIR.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from apps.chemistry.baselines.kernel import fit_gaussian_process, fit_svr
from apps.chemistry.baselines.mix import MixKernel
from apps.chemistry.datasets import load_table
from apps.chemistry.metrics import roc_auc
from apps.chemistry.molecules import mol_from_smiles

SETS = ("gem", "deepchem", *(f"scaffold-{i}" for i in (0, 1, 2, 4, 6, 8)))
N_RESAMPLE = 500


def areas(name: str) -> dict[str, tuple[float, float, float, float]]:
    """Give by labelling the areas of mix, mix with classes, measured values, and the error."""
    table = load_table(f"bace/{name}")
    mols = [mol_from_smiles(text) for text in table.smiles]
    fitted, test = np.nonzero(table.split != "test")[0], table.split == "test"
    kernel = MixKernel.of([mols[i] for i in fitted]).against(mols).astype(np.float64)
    square, value = kernel[fitted], table.target[:, 0].astype(np.float64)
    models = fit_gaussian_process(square, value[fitted]), fit_svr(square, value[fitted], seed=0)
    mix = np.mean([model.predict(kernel) for model in models], axis=0)
    found, draw = {}, np.random.default_rng(0)
    for label in ("published", "repaired"):
        active = table.extra[f"active_{label}"].astype(np.float64)
        classes = fit_gaussian_process(square, active[fitted]).predict(kernel)
        both = mix / mix[fitted].std() + classes / classes[fitted].std()
        true, shown = active[test], mix[test]
        again = [
            roc_auc(true[pick], shown[pick])
            for pick in draw.integers(len(true), size=(N_RESAMPLE, len(true)))
        ]
        scores = (roc_auc(true, some[test]) for some in (mix, both, value))
        found[label] = (*scores, float(np.std(again)))
    return found


def main(arguments: Sequence[str]) -> int:
    """Print a line for each set and labelling."""
    print(f"{'set':12s} {'labels':10s}    mix  with classes  measured  error")
    for name in arguments or SETS:
        for label, (mix, both, measured, error) in areas(name).items():
            print(f"{name:12s} {label:10s} {mix:.4f} {both:13.4f} {measured:9.4f} {error:6.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
