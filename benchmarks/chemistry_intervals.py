"""How often intervals hold the truth on random scaffold splits, in all and by similarity.

The Gaussian process on the kernel mix stands for the model: it is fitted to the train part in
seconds, so that many splits can be asked; its errors on the valid part calibrate the intervals as
those of any model would. Each set counts by its molecules.
"""

import argparse
from dataclasses import replace
from itertools import pairwise

import numpy as np

from apps.chemistry.baselines import MixKernel
from apps.chemistry.baselines.kernel import fit_gaussian_process
from apps.chemistry.calibration import COVERAGE
from apps.chemistry.datasets import load_table, split_molecules
from apps.chemistry.evaluate import COVERAGE_BINS
from apps.chemistry.molecules import mol_from_smiles
from apps.chemistry.reference import Reference


def main(arguments: list[str]) -> int:
    """Print the share of test molecules inside their interval, pooled over the splits."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chemistry_intervals", description=__doc__
    )
    parser.add_argument("--data", nargs="+", default=["bace"], help="sets or files")
    parser.add_argument("--splits", type=int, default=10, help="random scaffold splits of each")
    given = parser.parse_args(arguments)
    inside, similarity, alone = [], [], []
    for name in given.data:
        table = load_table(name)
        mols = [mol_from_smiles(text) for text in table.smiles]
        y = table.exact[:, 0].astype(np.float64)
        kernel = MixKernel.of(mols).against(mols).astype(np.float64)
        for seed in range(given.splits):
            parted = replace(table, split=split_molecules(mols, "random_scaffold", seed=seed))
            train, test = (
                np.nonzero((parted.split == part) & np.isfinite(y))[0] for part in ("train", "test")
            )
            model = fit_gaussian_process(kernel[np.ix_(train, train)], y[train])
            said = model.predict(kernel[:, train])
            reference = Reference.of(parted, said[parted.split == "valid"][:, None])
            _, near, own = reference.nearest([mols[i] for i in test])
            held = np.abs(said[test] - y[test]) <= reference.half_width(own)[:, 0]
            alone.append(held.mean())
            inside.append(held)
            similarity.append(near)
            print(f"{name} split {seed}: {100 * held.mean():.1f} % of {held.size}", flush=True)
    held, near = np.concatenate(inside), np.concatenate(similarity)
    print(f"all: {100 * held.mean():.1f} % of {held.size}, asked for {100 * COVERAGE:.0f} %")
    print(
        f"splits: {100 * min(alone):.1f} to {100 * max(alone):.1f} %, sd {100 * np.std(alone):.1f}"
    )
    for low, high in pairwise(COVERAGE_BINS):
        rows = (near >= low) & (near < high)
        if rows.any():
            share = f"{100 * held[rows].mean():.1f} % of {rows.sum()}"
            print(f"similarity {low:.2f} to {min(high, 1.0):.2f}: {share}")
    return 0


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
