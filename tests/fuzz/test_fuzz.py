"""Hostile inputs by the hundred thousand, to every reader.

Each input is a good one, spoilt: bits turned, pieces cut, doubled, taken from another, words of the
format thrown in. A reader may accept it or refuse it with an error of the suite; anything else
(a crash, another exception, an empty sentence, a hang) fails, and the input is printed for a test.
`TESSERA_FUZZ` sets the number of inputs for each reader. The same seed makes the same inputs.
"""

import contextlib
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import DataError, TesseraError

pytestmark = pytest.mark.fuzz

N_INPUT = int(os.environ.get("TESSERA_FUZZ", "100000"))
SLOWEST_S = 20.0  # no input, however odd, may take longer
ROOT = Path(__file__).parents[2]

MOLECULES = [
    *("CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "[Na+].CC(=O)[O-]", "c1ccc2[nH]ccc2c1"),
    *("F/C=C/F", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "[2H]C([2H])([2H])O", "O=C(N1CCC1)c1cc(Cl)ccn1"),
]
TABLE = "smiles,y,unit,rel\n" + "\n".join(
    f"{smiles},{i + 0.5},nM,{'<>='[i % 3]}" for i, smiles in enumerate(MOLECULES)
)
SDF = """aspirin
  made by hand

  3  2  0  0  0  0            999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.5000    0.0000    0.0000 C   0  0
    2.2500    1.2990    0.0000 O   0  0
  1  2  1  0
  2  3  1  0
M  END
> <y>
5.5

$$$$
"""
CONFIG = """variant = "dense-fp32"
[data]
source = "pocket"
[train]
n_epoch = 3
learning_rate = 0.001
[model]
d_hidden = 32
"""
STUDY = """title = "t"
seeds = [0]
machines = ["ipu_bow", "a100"]
[[sweep]]
application = "chemistry"
base.train.n_epoch = 1
[sweep.grid]
variant.density = [1.0, 0.25]
variant.block = [16, 8]
"""
OPS = [
    "spmm m=4096 k=4096 n=1024 block=16 density=0.0625 dtype=fp16 mode=static",
    "matmul m=1024 k=512 n=64 dtype=fp32",
    "softmax m=128 n=1024 dtype=fp16",
]
WORDS = {
    "smiles": [
        "[",
        "]",
        "(",
        ")",
        "%12",
        "@@",
        "@",
        "/",
        "\\",
        ".",
        "#",
        "=",
        "[Fe]",
        "*",
        "é",
        "1",
    ],
    "csv": [
        ",",
        ";",
        "\t",
        '"',
        "\n",
        "\r\n",
        "nan",
        "inf",
        "1e999",
        "-",
        "µM",
        "\x00",
        "smiles",
        "<",
    ],
    "sdf": [
        "M  END\n",
        "$$$$\n",
        "> <y>\n",
        "V3000",
        "999",
        "\n\n",
        "nan",
        "-1",
        "M  CHG  1   1   9\n",
    ],
    "toml": [
        "[",
        "]",
        "=",
        '"',
        "\n",
        "nan",
        "inf",
        "[[sweep]]",
        "-1",
        "1e999",
        "true",
        "{",
        "}",
        "#",
    ],
    "json": ["{", "}", "[", "]", ":", ",", "null", "NaN", "1e999", '"schema"', "true", "\\u0000"],
    "op": ["=", " ", "-1", "0", "1e9", "nan", "density", "block", "fp8", "banana", "2.5", "=="],
    "bytes": ["\x00" * 8, "\xff" * 4, "HDF", "CDF", "{}", "\x89"],
}


def spoil(data, donor, words, draw):
    """Give `data` with one to four injuries."""
    data = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(7)
        if kind == 0 and data:
            at = min(at, len(data) - 1)
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at : at + draw.randint(1, 12)]
        elif kind == 2:
            data[at:at] = data[at : at + draw.randint(1, 40)] * draw.randint(1, 3)
        elif kind == 3:
            cut = draw.randrange(len(donor) + 1)
            data[at:at] = donor[cut : cut + draw.randint(1, 60)]
        elif kind == 4:
            data[at:at] = draw.choice(words).encode("latin-1", "replace")
        elif kind == 5:
            del data[at:]
        else:
            data[at:at] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 4)))
    return bytes(data)


def smiles_reader(tmp):
    from apps.chemistry.molecules import featurise, standardise

    def read(data):
        molecule, _ = standardise(data.decode("utf-8", "replace"))
        featurise(molecule)

    return [smiles.encode() for smiles in MOLECULES], "smiles", read


def rows_reader(suffix, text, words):
    def make(tmp):
        from apps.chemistry.datasets.rows import open_rows

        path = tmp / f"fuzz{suffix}"

        def read(data):
            path.write_bytes(data)
            with open_rows(path) as opened:
                problems = [row.problem for row in opened.rows]
            if any(problems):  # told row by row
                raise DataError(next(filter(None, problems)) + " in a row")

        return [text.encode()], words, read

    return make


def table_reader(tmp):
    """The whole way from a file to what a network trains on."""
    from apps.chemistry.datasets.load import load_table

    path = tmp / "fuzz.csv"
    many = TABLE + "\n" + "\n".join(f"{'C' * i}O,{i},nM,=" for i in range(1, 30))

    def read(data):
        path.write_bytes(data)
        table = load_table(
            str(path), target="y", relation_column="rel", unit_column="unit", split="random"
        )
        assert not np.isinf(table.target).any()

    return [many.encode()], "csv", read


def config_reader(tmp):
    from apps.chemistry.config import TrainConfig
    from apps.lab.config import load_config

    path = tmp / "fuzz.toml"

    def read(data):
        path.write_bytes(data)
        load_config(TrainConfig, file=path)

    return [CONFIG.encode()], "toml", read


def machine_reader(tmp):
    from hw.machine import load_machine

    files = sorted((ROOT / "hw" / "machines").glob("*.toml"))
    path = tmp / "fuzz.toml"

    def read(data):
        path.write_bytes(data)
        load_machine(path)

    return [file.read_bytes() for file in files], "toml", read


def study_reader(tmp):
    from apps.suite.study import read_study

    path = tmp / "fuzz.toml"

    def read(data):
        path.write_bytes(data)
        read_study(path)

    return [STUDY.encode()], "toml", read


def record_reader(tmp):
    from apps.lab.record import new_record, read_record, write_record
    from apps.lab.variant import VARIANTS

    record = new_record(
        application="chemistry",
        command="train",
        config=VARIANTS["dense-fp32"],
        seed=0,
        device="cpu",
        data={
            **{"name": "a", "source": "embedded", "sha256": "0" * 64, "unit": "pK"},
            **{"n_train": 1, "n_valid": 1, "n_test": 1},
        },
        accuracy={"test": {"rmse": 0.5}},
    )
    good = write_record(tmp, record).read_bytes()
    path = tmp / "fuzz.json"

    def read(data):
        path.write_bytes(data)
        read_record(path)

    return [good], "json", read


def checkpoint_reader(tmp):
    from apps.lab.checkpoint import load_checkpoint, save_checkpoint

    tensors = {"w": torch.arange(12.0).reshape(3, 4), "code": torch.arange(5, dtype=torch.int8)}
    good = save_checkpoint(tmp / "good.safetensors", tensors, {"epoch": 3}).read_bytes()
    path = tmp / "fuzz.safetensors"

    def read(data):
        path.write_bytes(data)
        load_checkpoint(path)

    return [good], "bytes", read


def netcdf_reader(tmp):
    import xarray

    from apps.weather.forecast.netcdf import model_state, open_dataset, write_dataset
    from apps.weather.model import Model

    model = Model("T5L3")
    from apps.weather.forecast.netcdf import dataset, snapshot

    good = dataset(model, [snapshot(model, model.initial(seed=0))])
    write_dataset(tmp / "good.nc", good)
    path = tmp / "fuzz.nc"
    assert isinstance(open_dataset(tmp / "good.nc"), xarray.Dataset)

    def read(data):
        path.write_bytes(data)
        model_state(model, open_dataset(path))

    return [(tmp / "good.nc").read_bytes()], "bytes", read


def op_reader(tmp):
    from hw.single import parse_op

    return [op.encode() for op in OPS], "op", lambda data: parse_op(data.decode("utf-8", "replace"))


def measurement_reader(tmp):
    from hw.validate import read_table

    head = "id,source,machine,op,dtype,m,k,n,block,density,mode,metric,value,unit,note\n"
    path = tmp / "fuzz.csv"

    def read(data):
        path.write_bytes(data)
        read_table(path)

    return (
        [(head + "a,b,Bow,matmul,fp16,1,2,3,,,,tflops,1.5,TFLOP/s,\n").encode()],
        "csv",
        read,
    )


READERS = {
    "smiles": smiles_reader,
    "csv": rows_reader(".csv", TABLE, "csv"),
    "smi": rows_reader(
        ".smi", "\n".join(f"{m} name{i}" for i, m in enumerate(MOLECULES)), "smiles"
    ),
    "sdf": rows_reader(".sdf", SDF * 2, "sdf"),
    "table": table_reader,
    "config": config_reader,
    "machine": machine_reader,
    "study": study_reader,
    "record": record_reader,
    "checkpoint": checkpoint_reader,
    "netcdf": netcdf_reader,
    "op": op_reader,
    "measurements": measurement_reader,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
def test_reader_accepts_or_refuses_in_words(name, tmp_path):
    from rdkit import rdBase

    seeds, words, read = READERS[name](tmp_path)
    for good in seeds:
        read(good)  # what is to be spoilt is good
    draw = random.Random(name)
    n_refused = 0
    with rdBase.BlockLogs(), contextlib.redirect_stderr(None):
        for i in range(N_INPUT):
            data = spoil(draw.choice(seeds), draw.choice(seeds), WORDS[words], draw)
            begin, problem = time.process_time(), "accepted all of it"
            try:
                read(data)
            except TesseraError as error:
                n_refused += 1
                problem = str(error)
            except BaseException as error:
                raise AssertionError(f"{name}, input {i}: {data!r}: {error!r}") from error
            assert len(problem) > 10, f"{name}, input {i}: {data!r}: refused without a reason"
            took_s = time.process_time() - begin
            assert took_s < SLOWEST_S, f"{name}, input {i}: {data!r}: {took_s:.0f} s"
    print(f"{name}: {N_INPUT} inputs, {n_refused} refused")
    assert n_refused > 0 or name == "smi"  # there any line is a row: its text is judged later
