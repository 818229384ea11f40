"""What `tessera chemistry predict` costs on a long file: seconds and memory, parsing included.

The file holds the molecules of some sets again and again, each time spelt in another order of
atoms, so that every row has to be read anew. The command runs twice as a user runs it, on a tenth
of the rows and on all of them: memory that does not grow shows in both peaks being alike. Peaks are
those of the largest process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rdkit import Chem

from apps.chemistry.datasets import load_table
from apps.chemistry.predictor import Predictor
from apps.lab.files import write_atomic

SCHEMA = "tessera.chemistry.predict/1"


def main(arguments: list[str]) -> int:
    """Print seconds, rows per CPU second and peak memory; write them where asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chemistry_predict", description=__doc__
    )
    parser.add_argument("run", type=Path, help="folder of a finished run, or its model file")
    parser.add_argument("--data", nargs="+", default=["bace"], help="sets or files of molecules")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2, help="processes of predict")
    parser.add_argument("--results", type=Path, help="JSON file")
    given = parser.parse_args(arguments)
    predictor = Predictor.load(given.run)
    found = {
        "schema": SCHEMA,
        "n_row": given.rows,
        "jobs": given.jobs,
        "n_processor": len(os.sched_getaffinity(0)),
        "n_network": len(predictor.members),
        "d_hidden": predictor.config.model.d_hidden,
        "kernel_molecules": 0 if predictor.kernel is None else len(predictor.kernel.smiles),
    }
    with tempfile.TemporaryDirectory() as place:
        for name, n_row in (("tenth", given.rows // 10), ("whole", given.rows)):
            source = Path(place) / f"{name}.csv"
            with source.open("w", encoding="utf-8") as file:
                file.write("smiles\n")
                file.writelines(f"{smiles}\n" for smiles in _spelt(given.data, n_row))
            out = Path(place) / "answers.csv"
            found[name] = _timed(given.run, source, out, given.jobs)
            with out.open(encoding="utf-8") as file:
                assert sum(1 for _ in file) == n_row + 1
    whole, tenth = found["whole"], found["tenth"]
    print(
        f"{given.rows:,} rows, {given.jobs} process(es): {whole['wall_s']:.1f} s, "
        f"{whole['cpu_s']:.1f} CPU s, {given.rows / whole['cpu_s']:.0f} rows per CPU second; peak "
        f"{whole['peak_mb']:.0f} MB, with a tenth of the rows {tenth['peak_mb']:.0f} MB"
    )
    if given.results:
        write_atomic(given.results, json.dumps(found, indent=1) + "\n")
    return 0


def _spelt(names: Sequence[str], n_row: int) -> Iterator[str]:
    """Yield SMILES of the sets' molecules, never spelt alike by design."""
    mols = [Chem.MolFromSmiles(text) for name in names for text in load_table(name).smiles]
    for row in range(n_row):
        seed = 1 + row // len(mols)
        yield Chem.MolToRandomSmilesVect(mols[row % len(mols)], 1, randomSeed=seed)[0]


def _timed(run: Path, source: Path, out: Path, jobs: int) -> dict[str, float]:
    command = [sys.executable, "-m", "apps.chemistry", "predict", str(run), str(source)]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--out", str(out), "--jobs", str(jobs), "--quiet"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("predict failed; its message stands above")
    return {
        "wall_s": round(time.perf_counter() - start, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024, 1),
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
