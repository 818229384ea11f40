"""The tables of CHEMISTRY.md, from the documents below results/chemistry.

``tessera chemistry benchmark --suite S --results benchmarks/results/chemistry/S.json`` writes a
document; ``python -m benchmarks.chemistry_tables`` makes the page anew.
"""

from pathlib import Path

from apps.chemistry.benchmark import SCHEMA, benchmark_markdown, read_document
from apps.lab.files import write_atomic

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "chemistry"
PAGE = HERE / "CHEMISTRY.md"
HEAD = """# Chemistry: what was measured

Made by `python -m benchmarks.chemistry_tables` from `results/chemistry/`. Test part of each set's
own split; settings, epochs and weights never saw it.

- kernel: Gaussian process and support vectors on a mix of seven kernels, this set alone.
- trees: extremely randomised trees on ECFP4 bits and descriptors, this set alone.
- graph: mean of the graph networks trained without one fold each; no fingerprint and no kernel at
  prediction. With `teacher` they were also trained on what the kernel mix, fitted without the same
  fold, says of the training molecules of all sets; without it the line stands for itself.
- k+g: kernel and graph; hybrid: kernel, trees and graph; weights from held-out folds, the same for
  all sets.
- seen: test molecules that another set of the run has among its training rows, whose labels the
  joint network knows and the kernel does not; unseen: the others.
- publ.: published errors (MoleculeACE, results at commit 7e6de0bd), the best graph network of each
  set.
"""


def page() -> str:
    """Return the page that the documents make."""
    parts = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        if f'"{SCHEMA}"' not in path.read_text(encoding="utf-8"):
            continue  # a record of another kind
        document = read_document(path)
        config = document["config"]
        settings = (
            f"{document['n_together']} set(s) to a network, {config['n_fold']} networks, "
            f"{config['train']['n_epoch']} epochs, width {config['model']['d_hidden']}, "
            f"variant {config['variant']['name']}, teacher {'on' if config['teacher'] else 'off'}"
        )
        parts.append(f"## {path.stem}\n\n{settings}.\n\n{benchmark_markdown(document)}")
    return "\n".join(parts)


if __name__ == "__main__":
    write_atomic(PAGE, page())
