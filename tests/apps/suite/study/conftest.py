"""An application whose runs take no time and whose accuracy and cost are closed forms."""

import sys
import textwrap

import pytest

from apps.lab.progress import set_verbosity

TOY = """
from pathlib import Path
from apps.lab.config import Config
from apps.lab.launch import start_run
from apps.lab.record import new_record, write_record
from apps.lab.variant import VARIANTS, Variant
from core.errors import DataError

class Fit(Config):
    batch: int = 10
    rate: float = 1.0

class TrainConfig(Config):
    variant: Variant = VARIANTS["dense-fp32"]
    train: Fit = Fit()

def run(config, *, out, seed, device="auto", resume=False):
    with (Path(__file__).parent / "log").open("a") as log:
        log.write(out.name + "\\n")
    if config.train.rate == 13:
        raise DataError("the loss is <b>nan</b>")
    density, batch = config.variant.density, config.train.batch
    # halving the density adds 0.1, a rate of 2 takes 0.05 away, the seed adds itself
    rmse = 1.0 + 0.2 * (1 - density) - 0.05 * (config.train.rate == 2) + 0.001 * seed
    time_s = density * (1 + 0.01 * batch)
    energy = dict.fromkeys(("compute", "local_memory", "exchange", "off_chip", "static"), 0.2)
    costs = [
        dict(machine=machine, phase=phase, variant=config.variant.name, time_s=factor * time_s,
             energy_j=2 * density, peak_tile_memory_byte=int(1000 * density), fits=density < 1 or
             machine != "ipu_gc200", time_interval_s=(0.1, 9.0), energy_by=energy, utilisation=0.5)
        for machine, factor in (("ipu_gc200", 1.0), ("a100", 3.0))
        for phase in ("inference", "train_step")
    ]
    history = [dict(epoch=i, loss=1.0, valid_rmse=rmse + 1.0 / (1 + i)) for i in range(4)]
    with start_run(out, config, seed=seed, device=device, resume=resume, command="toy",
                   application="toy") as place:
        record = new_record(application="toy", command="toy", config=config, seed=seed,
            device=place.device, accuracy={"test": {"rmse": rmse}}, history=history,
            baselines={"mean": {"test": {"rmse": 1.15}}}, cost=costs,
            data=dict(name="toy", source="embedded", sha256="0", n_train=100, n_valid=1, n_test=1,
                      unit="pK"))
        write_record(place.dir, record)
    return record
"""

STUDY = """
title = "Toys & <i>games</i>"
seeds = [0, 1]
machines = ["ipu_gc200", "a100"]
[break_even]
width = [256, 1024]
block = [8, 16]
density = [0.5, 0.05]
[[sweep]]
application = "toy"
base.train.batch = 20
[sweep.grid]
variant.density = [1.0, 0.5]
variant.block = [16, 8]
"train.rate" = [1.0, 2.0]
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The folder of the test, and the applications as `run_study` takes them."""
    (tmp_path / "study_toy.py").write_text(textwrap.dedent(TOY))
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("study_toy", None)
    (tmp_path / "study.toml").write_text(STUDY)
    yield tmp_path, {"toy": "study_toy"}
    set_verbosity(1)


@pytest.fixture
def serial(monkeypatch):
    """Do jobs in this process."""
    from apps.suite.pool import work
    from apps.suite.study import run as module

    def run_jobs(jobs, n_job, scheduler):
        for job in jobs:
            outcome = work(job)
            set_verbosity(1)
            yield job, outcome

    monkeypatch.setattr(module, "run_jobs", run_jobs)


@pytest.fixture
def finished(toy, serial):
    """The folder of a finished study."""
    from apps.suite.study import run_study

    folder, applications = toy
    assert run_study(folder / "study.toml", folder / "out", applications=applications) == 0
    return folder / "out"
