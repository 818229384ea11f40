"""What `tessera chemistry predict` costs on a long file: seconds and memory, parsing included.

The file holds the molecules of some sets again and again, each time spelt in another order of
atoms, so that every row has to be read anew. The command runs twice as a user runs it, on a tenth
of the rows and on all of them: memory that does not grow shows in both peaks being alike. Peaks are
those of the largest process. What each part of an answer takes is measured besides, in this process
and one thread.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rdkit import Chem

from apps.chemistry.datasets import load_table
from apps.chemistry.molecules import featurise_many, standardise
from apps.chemistry.molecules.stereo import stereo_warnings
from apps.chemistry.molecules.tables import MolTables
from apps.chemistry.predictor import Predictor
from apps.lab.files import write_atomic

SCHEMA = "tessera.chemistry.predict/1"
N_STAGED = 1024  # rows whose answer is timed part by part


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
    found["cpu_us_per_row"] = _stages(predictor, list(_spelt(given.data, N_STAGED)))
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
    for stage, each in found["cpu_us_per_row"].items():
        print(f"{each:8.1f} CPU us a row: {stage}")
    if given.results:
        write_atomic(given.results, json.dumps(found, indent=1) + "\n")
    return 0


def _spelt(names: Sequence[str], n_row: int) -> Iterator[str]:
    """Yield SMILES of the sets' molecules, never spelt alike by design."""
    mols = [Chem.MolFromSmiles(text) for name in names for text in load_table(name).smiles]
    for row in range(n_row):
        seed = 1 + row // len(mols)
        yield Chem.MolToRandomSmilesVect(mols[row % len(mols)], 1, randomSeed=seed)[0]


def _stages(predictor: Predictor, smiles: list[str]) -> dict[str, float]:
    """Return CPU microseconds a row of each part of an answer, the least of three tries."""
    best: dict[str, float] = {}

    def timed(stage: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.thread_time()
        out = work(*arguments)
        spent = (time.thread_time() - start) / len(smiles) * 1e6
        best[stage] = round(min(spent, best.get(stage, spent)), 1)
        return out

    n_thread = torch.get_num_threads()
    torch.set_num_threads(1)
    for attempt in range(4):
        mols = timed("reading, standard form", lambda: [standardise(s)[0] for s in smiles])
        tables = timed("atoms and bonds", MolTables.of, mols)
        graphs = timed("graphs", featurise_many, tables)
        _, counts = timed("networks", predictor.run_networks, graphs)
        for i, process in enumerate(predictor.processes):
            timed(f"process {i}", process.predict, counts[i])
        if predictor.kernel is not None:
            timed("kernel mix", predictor.kernel.predict, tables)
        if predictor.reference is not None:
            timed("nearest molecule", predictor.reference.nearest, tables)
        timed("open stereo", lambda each: [stereo_warnings(mol) for mol in each], mols)
        if attempt == 0:  # what is prepared once
            best.clear()
    torch.set_num_threads(n_thread)
    processes = [best.pop(f"process {i}") for i in range(len(predictor.processes))]
    return best | ({"processes on their counts": round(sum(processes), 1)} if processes else {})


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
