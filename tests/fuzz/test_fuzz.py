"""Hostile inputs by the hundred thousand, to every reader.

A reader may accept an input or refuse it with an error of the suite that says enough and names what
it refuses; anything else (a crash, another exception, a hang) fails, and the input is printed for a
test. `TESSERA_FUZZ` sets the number of inputs for each reader, `TESSERA_FUZZ_SEED` which they are:
a slow reader can be fuzzed in parts.
"""

import contextlib
import faulthandler
import os
import random
import sys
import time
import traceback
from pathlib import Path

import pytest

from core.errors import TesseraError
from tests.fuzz.injuries import WORDS, spoil
from tests.fuzz.readers import READERS

pytestmark = pytest.mark.fuzz

N_INPUT = int(os.environ.get("TESSERA_FUZZ", "100000"))
SEED = os.environ.get("TESSERA_FUZZ_SEED", "")
SLOWEST_S = 20.0  # no input, however odd, may take longer
N_SHOWN = 8  # distinct failures to collect before giving up


def place(error: BaseException) -> str:
    """Where in the suite, or else where at all, an exception that nobody meant came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/tests/" not in f.filename and "/.venv/" not in f.filename]
    last = (ours or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno} {type(error).__name__}"


def judge(read, data: bytes, named: str) -> tuple[bool, str, str]:
    """Give whether `data` was refused; if that was no good answer, where and what came instead."""
    begin = time.process_time()
    refused, where, problem = False, "", ""
    try:
        read(data)
    except TesseraError as error:
        refused = True
        if len(str(error)) < 20 or named not in str(error):
            where, problem = f"unclear {place(error)}", str(error)
    except BaseException as error:
        where, problem = place(error), repr(error)
    if time.process_time() - begin > SLOWEST_S:
        where, problem = "slow", f"{time.process_time() - begin:.0f} s"
    return refused, where, problem


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
def test_reader_accepts_or_refuses_in_words(name, tmp_path, record_property):
    from rdkit import rdBase

    reader = READERS[name](tmp_path)
    for good in reader.good:
        reader.read(good)  # what is to be spoilt is good
    draw, n_refused = random.Random(name + SEED), 0
    found: dict[str, str] = {}
    with rdBase.BlockLogs(), contextlib.redirect_stderr(None):
        for i in range(int(N_INPUT * reader.share)):
            if i % 1000 == 0:  # a reader that never comes back ends the run, with its stack
                faulthandler.dump_traceback_later(30 * SLOWEST_S, exit=True, file=sys.__stderr__)
            good = draw.choice(reader.good)
            if reader.forge is None:
                data = spoil(good, draw.choice(reader.good), WORDS[reader.words], draw)
            else:
                data = reader.forge(good, draw)
            refused, where, problem = judge(reader.read, data, reader.named)
            n_refused += refused
            if where:
                shown = data if len(data) < 2000 else data[:2000] + b"..."
                found.setdefault(where, f"input {i}: {shown!r}: {problem[:500]}")
                if len(found) == N_SHOWN:
                    break
    faulthandler.cancel_dump_traceback_later()
    record_property("count", f"{name}: {i + 1:,} inputs, {n_refused:,} refused in words")
    assert not found, "\n".join(f"{name}, {where}: {text}" for where, text in found.items())
    assert n_refused > 0 or name == "smi"  # there any line is a row: its text is judged later
