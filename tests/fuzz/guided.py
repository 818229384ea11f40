"""Coverage-guided fuzzing of one reader, where atheris is installed (pip install atheris).

    python -m tests.fuzz.guided csv -runs=100000

The words after the reader's name are libFuzzer's. The inputs grow from the good ones towards code
that none has reached; what `test_fuzz.judge` calls no good answer stops the run and is printed.
"""

import importlib
import sys
import tempfile
import warnings
from pathlib import Path


def main() -> int:
    """Fuzz the reader named by the first word."""
    from tests.fuzz.readers import READERS

    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        print(f"usage: python -m tests.fuzz.guided {{{','.join(READERS)}}} [-runs=N]")
        return 2
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print(
            "fuzz: atheris is not installed here; `make fuzz` needs nothing but the test packages"
        )
        return 3
    from rdkit import rdBase

    with atheris.instrument_imports(include=["apps", "core", "hw"]):
        from tests.fuzz.test_fuzz import judge

        folder = Path(tempfile.mkdtemp(prefix="tessera-fuzz-"))
        reader = READERS[sys.argv[1]](folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, good in enumerate(reader.good):
        (corpus / str(i)).write_bytes(good)
    warnings.simplefilter("ignore")
    quiet = rdBase.BlockLogs()

    def one_input(data: bytes) -> None:
        _, where, problem = judge(reader.read, data, reader.named)
        if where:
            raise AssertionError(f"{where}: {problem}: {data!r}")

    words = [sys.argv[0], str(corpus), f"-artifact_prefix={folder}/", *sys.argv[2:]]
    atheris.Setup(words, one_input)
    atheris.Fuzz()  # which ends the process
    del quiet
    return 0


if __name__ == "__main__":
    sys.exit(main())
