"""Every reader of the suite with good inputs to spoil, each given as one function of bytes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from core.errors import DataError
from tests.fuzz.injuries import as_json, spoil_tensors, spoil_values

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
WEATHER = """variant = "sparse-16x16-75-int8"
forecast = "none"
[columns]
n_day = 20
other_climates = []
[network]
n_epoch = 6
"""
OVERRIDES = ["train.n_epoch=3", "variant.density=0.5", "data.source=pocket", "train.batch_size=64"]
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
MEASURED = """id,source,machine,op,dtype,m,k,n,block,density,mode,metric,value,unit,note
a,b,Bow,matmul,fp16,1,2,3,,,,tflops,1.5,TFLOP/s,
"""


class Reader(NamedTuple):
    """A reader: good inputs, the words of its format, and what is done with an input."""

    good: list[bytes]
    words: str
    read: Callable[[bytes], object]
    named: str = ""
    """Stands in every refusal: the file that is refused."""
    forge: Callable[..., bytes] | None = None
    """Makes a spoilt input whose hash is right; else bytes are spoilt."""
    share: float = 1.0
    """Of the number of inputs: less where each builds a model."""


def of_file(path: Path, good: list[bytes], words: str, read, **more) -> Reader:
    """Give a reader of a file: each input is written to `path` first."""

    def through_file(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return Reader(good, words, through_file, path.name, **more)


def smiles(tmp: Path) -> Reader:
    from apps.chemistry.molecules import featurise, standardise

    def read(data):
        molecule, _ = standardise(data.decode("utf-8", "replace"))
        featurise(molecule)

    return Reader([text.encode() for text in MOLECULES], "smiles", read)


def _rows(path: Path, text: str, words: str) -> Reader:
    from apps.chemistry.datasets.rows import open_rows

    def read(path):
        with open_rows(path) as opened:
            problems = [row.problem for row in opened.rows]
        if any(problems):  # told row by row
            raise DataError(f"{path.name}: {next(filter(None, problems))} in a row")

    return of_file(path, [text.encode()], words, read)


def csv(tmp: Path) -> Reader:
    return _rows(tmp / "fuzz.csv", TABLE, "csv")


def smi(tmp: Path) -> Reader:
    return _rows(tmp / "fuzz.smi", "\n".join(f"{m} a{i}" for i, m in enumerate(MOLECULES)), "csv")


def sdf(tmp: Path) -> Reader:
    return _rows(tmp / "fuzz.sdf", SDF * 2, "sdf")


def table(tmp: Path) -> Reader:
    """The whole way from a file to what a network trains on."""
    from apps.chemistry.datasets.load import load_table

    def read(path):
        loaded = load_table(
            str(path), target="y", relation_column="rel", unit_column="unit", split="random"
        )
        assert not np.isinf(loaded.target).any()

    many = TABLE + "\n" + "\n".join(f"{'C' * i}O,{i},nM,=" for i in range(1, 5))
    return of_file(tmp / "fuzz.csv", [many.encode()], "csv", read)


def _config(module: str, text: str):
    def make(tmp: Path) -> Reader:
        import importlib

        from apps.lab.config import load_config

        model = importlib.import_module(module).TrainConfig
        path = tmp / "fuzz.toml"
        return of_file(path, [text.encode()], "toml", lambda file: load_config(model, file=file))

    return make


def override(tmp: Path) -> Reader:
    from apps.chemistry.config import TrainConfig
    from apps.lab.config import load_config

    def read(data):
        load_config(TrainConfig, overrides=[data.decode("utf-8", "replace")])

    return Reader([text.encode() for text in OVERRIDES], "override", read, "--set")


def machine(tmp: Path) -> Reader:
    from hw.machine import load_machine

    files = sorted((ROOT / "hw" / "machines").glob("*.toml"))
    return of_file(tmp / "fuzz.toml", [f.read_bytes() for f in files], "toml", load_machine)


def study(tmp: Path) -> Reader:
    from apps.suite.study import read_study

    return of_file(tmp / "fuzz.toml", [STUDY.encode()], "toml", read_study)


def op(tmp: Path) -> Reader:
    from hw.single import parse_op

    good = [text.encode() for text in OPS]
    return Reader(good, "op", lambda data: parse_op(data.decode("utf-8", "replace")))


def measurements(tmp: Path) -> Reader:
    from hw.validate import read_table

    return of_file(tmp / "fuzz.csv", [MEASURED.encode()], "csv", read_table)


def _good_record(tmp: Path) -> bytes:
    from apps.lab.record import new_record, write_record
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
    return write_record(tmp, record).read_bytes()


def record(tmp: Path) -> Reader:
    from apps.lab.record import read_record

    return of_file(tmp / "fuzz.json", [_good_record(tmp)], "json", read_record)


def forged_record(tmp: Path) -> Reader:
    """Other values under a hash that is theirs: only the schema stands in the way."""
    from apps.lab.record import read_record

    def forge(data, draw):
        content = spoil_values(json.loads(data), draw)
        content.pop("sha256", None)
        text = json.dumps(content, sort_keys=True)
        return as_json({**content, "sha256": hashlib.sha256(text.encode()).hexdigest()})

    good = [_good_record(tmp)]
    return of_file(tmp / "fuzz.json", good, "json", read_record, forge=forge)


def _good_state(tmp: Path) -> bytes:
    from apps.suite.study.spec import read_study
    from apps.suite.study.state import PointState, RunState, StudyState, write_state

    (tmp / "study.toml").write_text(STUDY)
    points = [PointState(key="k", sweep="s", application="chemistry", seed=0, levers={"a": 1})]
    state = StudyState(
        study=read_study(tmp / "study.toml"), points=points, runs={"k": RunState(status="done")}
    )
    write_state(tmp, state)
    return (tmp / "study.json").read_bytes()


def study_state(tmp: Path) -> Reader:
    from apps.suite.study.state import read_state

    path, good = tmp / "study.json", [_good_state(tmp)]
    return of_file(path, good, "json", lambda path: read_state(path.parent))


def forged_study_state(tmp: Path) -> Reader:
    return study_state(tmp)._replace(
        forge=lambda data, draw: as_json(spoil_values(json.loads(data), draw))
    )


def run_folder(tmp: Path) -> Reader:
    """`run.json` of a folder that is to be resumed."""
    from apps.chemistry.config import TrainConfig
    from apps.lab.launch import start_run

    config, folder = TrainConfig(), tmp / "run"
    how = {"seed": 0, "device": "cpu", "command": "train", "application": "chemistry"}
    start_run(folder, config, **how).close()
    (folder / "log.csv").write_text("kept")
    good = [(folder / "run.json").read_bytes()]

    def read(path):
        start_run(folder, config, resume=True, **how).close()

    return of_file(folder / "run.json", good, "json", read)._replace(named=str(folder))


def checkpoint(tmp: Path) -> Reader:
    from apps.lab.checkpoint import load_checkpoint, save_checkpoint

    tensors = {"w": torch.arange(12.0).reshape(3, 4), "code": torch.arange(5, dtype=torch.int8)}
    good = save_checkpoint(tmp / "good.safetensors", tensors, {"epoch": 3}).read_bytes()
    return of_file(tmp / "fuzz.safetensors", [good], "bytes", load_checkpoint)


def _forged(path: Path, good: Path, read) -> Reader:
    """A checkpoint with other tensors or other values, and the hash that belongs to them."""
    from apps.lab.checkpoint import load_checkpoint, save_checkpoint

    tensors, meta = load_checkpoint(good)
    other = path.with_name("forged.safetensors")

    def forge(data, draw):
        if draw.random() < 0.5:
            return save_checkpoint(other, spoil_tensors(tensors, draw), meta).read_bytes()
        return save_checkpoint(other, tensors, spoil_values(meta, draw)).read_bytes()

    return of_file(path, [good.read_bytes()], "bytes", read, forge=forge, share=0.05)


def forged_model(tmp: Path) -> Reader:
    from apps.chemistry.config import TrainConfig
    from apps.chemistry.predictor import Predictor, build_network
    from apps.lab.config import load_config

    config = load_config(TrainConfig, overrides=["model.d_hidden=16", "model.n_layer=1"])
    network = build_network(config, n_task=1, seed=0)
    good = Predictor(config, ["y"], "pK", [0], [network]).save(tmp / "model.safetensors")
    return _forged(tmp / "fuzz.safetensors", good, Predictor.load)


def forged_emulator(tmp: Path) -> Reader:
    from apps.weather.learned import Emulator, load_emulator, save_emulator
    from core import LayerSpec

    generator = torch.Generator().manual_seed(0)
    network = Emulator(n_level=3, width=16, n_hidden=1, spec=LayerSpec(), generator=generator)
    good = save_emulator(tmp / "good.safetensors", network, {"seed": 0})
    return _forged(tmp / "fuzz.safetensors", good, load_emulator)


def forged_restart(tmp: Path) -> Reader:
    from apps.weather.forecast import load_state, save_state
    from apps.weather.model import Model

    model = Model("T5L3")
    good = save_state(tmp / "good.safetensors", model, model.initial(seed=0))
    return _forged(tmp / "fuzz.safetensors", good, lambda path: load_state(path, model))


def netcdf(tmp: Path) -> Reader:
    from apps.weather.forecast import dataset, model_state, open_dataset, snapshot, write_dataset
    from apps.weather.model import Model

    model = Model("T5L3")
    fields = dataset(model, [snapshot(model, model.initial(seed=0))])
    needed = ["temperature", "specific_humidity", "eastward_wind", "northward_wind"]
    write_dataset(tmp / "good.nc", fields[[*needed, "surface_pressure"]])
    good = [(tmp / "good.nc").read_bytes()]

    def read(path):
        model_state(model, open_dataset(path), who=path.name)

    return of_file(tmp / "fuzz.nc", good, "bytes", read)


READERS: dict[str, Callable[[Path], Reader]] = {
    "smiles": smiles,
    "csv": csv,
    "smi": smi,
    "sdf": sdf,
    "table": table,
    "chemistry config": _config("apps.chemistry.config", CONFIG),
    "weather config": _config("apps.weather.train", WEATHER),
    "override": override,
    "machine": machine,
    "study": study,
    "op": op,
    "measurements": measurements,
    "record": record,
    "forged record": forged_record,
    "study state": study_state,
    "forged study state": forged_study_state,
    "run folder": run_folder,
    "checkpoint": checkpoint,
    "forged model": forged_model,
    "forged emulator": forged_emulator,
    "forged restart": forged_restart,
    "netcdf": netcdf,
}
