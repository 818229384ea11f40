"""What the study says, against the closed forms of the toy application."""

import json
import math
import re
from types import SimpleNamespace

import pytest

from apps.lab.report.parts import Line
from apps.lab.report.words import MISSING, times
from apps.suite.study.effects import effects
from apps.suite.study.export import export
from apps.suite.study.headlines import headlines
from apps.suite.study.pareto import Placed, front, frugal
from apps.suite.study.sheet import read_sheets
from apps.suite.study.state import read_state
from apps.suite.study.training import trainings

# Sums of a few doubles of order one.
ROUNDING = 1e-12
FIVE_DIGITS = 0.5e-4


@pytest.fixture
def sheet(finished):
    (only,), unread = read_sheets(finished, read_state(finished))
    assert unread == {}
    return only


def test_a_sheet_averages_over_seeds(sheet):
    assert [line.label for line in sheet.study.lines] == [
        "density 1.0, rate 1.0",
        "density 1.0, rate 2.0",
        "density 0.5, block 16, rate 1.0",
        "density 0.5, block 16, rate 2.0",
        "density 0.5, block 8, rate 1.0",
        "density 0.5, block 8, rate 2.0",
    ]
    first = sheet.study.lines[0]
    assert sheet.accuracy(first) == pytest.approx(1.0005, abs=ROUNDING)
    assert sheet.mean_cost(first, "inference", "a100", "time_s") == pytest.approx(3.6)
    # seeds 0 and 1 are 0.001 apart everywhere: variance 0.001**2 / 2
    assert sheet.seed_noise == pytest.approx(0.001 / math.sqrt(2), rel=1e-9)
    assert sheet.machines == ["ipu_gc200", "a100"]


def test_without_several_batch_sizes_nothing_is_said_of_them(sheet):
    assert trainings(sheet) == []


def test_the_effect_of_a_lever_is_its_closed_form(sheet):
    found = {(e.lever, e.value): e for e in effects(sheet, "inference")}
    density = found["variant.density", 0.5]
    # 2 blocks x 2 rates x 2 seeds; the four dense runs stand in two pairs each
    assert density.n_pair == 8
    assert density.change == pytest.approx(0.1, abs=ROUNDING)
    # twelve runs: eight sparse of weight 1/8, four dense of weight 1/4
    weight = math.sqrt(8 / 64 + 4 / 16)
    assert density.noise == pytest.approx(2 * sheet.seed_noise * weight)
    assert density.is_clear
    assert density.ratios["a100"]["time_s"] == pytest.approx(0.5)
    assert density.ratios["a100"]["peak_tile_memory_byte"] == pytest.approx(0.5)
    rate = found["train.rate", 2.0]
    # the dense runs are asked for twice, once for each block size
    assert rate.n_pair == 8
    assert rate.change == pytest.approx(-0.05, abs=ROUNDING)
    assert (rate.low, rate.high) == (pytest.approx(-0.05), pytest.approx(-0.05))
    assert rate.ratios["ipu_gc200"]["time_s"] == pytest.approx(1.0)
    block = found["variant.block", 8]
    assert block.n_pair == 4  # the dense ones are the same run twice
    assert block.change == pytest.approx(0.0, abs=ROUNDING)
    assert not block.is_clear


def placed(cost, accuracy, fits=True):
    return Placed(Line("", 0, []), cost, accuracy, fits)


def test_the_front_is_what_nothing_dominates():
    points = [
        placed(3, 0.5),
        placed(1, 0.9),
        placed(2, 0.9),  # dearer than an equal one
        placed(2, 0.7),
        placed(4, 0.6),  # dominated by the first
        placed(0.5, 0.1, fits=False),  # does not fit
        placed(1, 0.95),
    ]
    assert [(p.cost, p.accuracy) for p in front(points, "rmse")] == [(1, 0.9), (2, 0.7), (3, 0.5)]
    higher = [(p.cost, p.accuracy) for p in front(points, "r2")]
    assert higher == [(1, 0.95)]
    # a slow reference: every pair compared
    by_hand = [
        p
        for p in points
        if p.fits
        and not any(
            q.fits
            and q.cost <= p.cost
            and q.accuracy <= p.accuracy
            and (q.cost, q.accuracy) != (p.cost, p.accuracy)
            for q in points
        )
    ]
    assert sorted(by_hand, key=lambda p: p.cost) == front(points, "rmse")


def test_the_frugal_point_is_as_accurate_within_noise(sheet):
    # on the GC200 the dense runs do not fit; of the sparse ones none is as accurate
    assert frugal(sheet, "inference", "ipu_gc200", "energy_j") is None
    point = frugal(sheet, "inference", "a100", "energy_j")
    assert point.line.label == "density 1.0, rate 1.0"
    sheet.seed_noise = 0.06  # now 0.05 is within 2 * 0.06 * sqrt(1/2 + 1/2)
    point = frugal(sheet, "inference", "a100", "energy_j")
    assert point.line.label.startswith("density 0.5")
    assert point.cost == pytest.approx(1.0)


def test_time_to_train_is_steps_times_the_cost_of_a_step(toy, serial):
    from apps.suite.study import run_study

    folder, applications = toy
    text = 'break_even = "none"\n[[sweep]]\napplication = "toy"\ngrid.train.batch = [10, 30]\n'
    (folder / "batch.toml").write_text(text)
    assert run_study(folder / "batch.toml", folder / "b", applications=applications) == 0
    (sheet,), _ = read_sheets(folder / "b", read_state(folder / "b"))
    small, large = trainings(sheet)
    # 100 samples: 10 and 4 steps an epoch, 4 epochs; the goal is reached in the last epoch
    assert (small.batch, small.n_step, small.n_step_to_goal) == (10, 40, 40)
    assert (large.batch, large.n_step) == (30, 16)
    assert small.time_s["a100"] == pytest.approx(40 * 3 * 1.1)
    assert large.time_s["ipu_gc200"] == pytest.approx(16 * 1.3)
    page = (folder / "b" / "report.html").read_text()
    assert "Time to train against batch size" in page
    assert "Where sparse beats dense" not in page


def test_the_goal_is_what_the_worst_of_a_setting_reaches():
    from apps.suite.study.training import _epochs_to, _goal

    def record(*errors):
        return SimpleNamespace(history=[{"epoch": 0, "valid_rmse": e} for e in errors])

    fast, slow = record(0.9, 0.3, 0.1), record(0.9, 0.5, 0.4)
    name, goal = _goal([fast, slow])
    assert (name, goal) == ("valid_rmse", 0.4)
    assert (_epochs_to(fast, name, goal), _epochs_to(slow, name, goal)) == (2, 3)
    assert _goal([fast, SimpleNamespace(history=None)]) is None
    assert _goal([SimpleNamespace(history=[{"loss": 1.0}])]) is None


def test_what_is_kept_is_small_whole_and_what_the_page_links_to(finished, tmp_path):
    data, page = export(finished, tmp_path / "kept")
    content = json.loads(data.read_text())
    assert content["schema"] == "tessera.study-results/1"
    assert len(content["runs"]) == 12
    for key, run in content["runs"].items():
        record = json.loads((finished / "points" / key / "record.json").read_text())
        assert run["accuracy"]["test"]["rmse"] == pytest.approx(
            record["accuracy"]["test"]["rmse"], rel=FIVE_DIGITS
        )
        assert len(run["cost"]) == 4  # two machines, two phases
        # a dense run answers every block size that asked for it
        assert len(run["asked"]) == (2 if run["asked"][0]["levers"]["variant.density"] == 1 else 1)
        assert f'href="#{key}"' in page.read_text()
    text = page.read_text()
    assert "points/" not in text
    assert 'href="out.json"' in text
    # every link within the page arrives, and every run is there to be arrived at
    places = re.findall(r'id="([^"]+)"', text)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(places)
    assert set(content["runs"]) <= set(places)
    assert len(set(places)) == len(places)
    one = next(iter(content["runs"].values()))
    record = re.search(f'id="{next(iter(content["runs"]))}">(.*?)</article>', text, re.S)[1]
    assert f"test rmse {one['accuracy']['test']['rmse']}" in record
    assert one["config_sha256"] in record
    assert record.count("step</th>") == len(one["cost"])
    (session,) = content["sessions"]
    assert session["n_run"] == 12
    assert session["overhead"] >= 0  # all of it is counted


def test_the_page_is_whole_links_its_records_and_escapes(finished):
    page = (finished / "report.html").read_text()
    assert "Toys &amp; &lt;i&gt;games&lt;/i&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "12 of 12 runs are finished" in page
    for record in (finished / "points").glob("toy-*/record.json"):
        assert f'href="points/{record.parent.name}/record.json"' in page
    # two phases x two machines x three measures
    assert page.count('<svg class="chart"') == 12
    assert "faint" in page  # the dense points do not fit the GC200
    assert page.count("Looks wrong if") >= 4


def test_the_page_begins_with_accuracy_and_its_cost(sheet):
    (line,) = headlines([sheet])
    assert line.application == "toy"
    text = re.sub("<[^>]+>", "", line.accuracy)
    # dense at rate 2: 1 - 0.05 + 0.0005; every sparse point is 0.1 worse than its dense one
    assert text == (
        "test RMSE (pK): 0.950 of density 1.0, rate 2.0 "
        "(± 7.1e\N{MINUS SIGN}04 from seed to seed); 1.00 of density 1.0, rate 1.0; "
        "17 % lower than the best baseline, mean (1.15). "
        "0 of 4 sparse points are as accurate as dense within noise."
    )
    assert [row.label for row in line.rows] == [
        f"{machine}, {phase} step"
        for machine in ("Graphcore GC200", "NVIDIA A100-SXM4 80 GB")
        for phase in ("inference", "training")
    ]
    for row in line.rows:
        texts = [cell.text for cell in row.cells]
        assert texts == ["dense", MISSING, MISSING, MISSING, "4 of 4", "4 of 4"]


def test_a_sparse_point_as_accurate_as_dense_is_priced(sheet, monkeypatch):
    monkeypatch.setattr("apps.suite.study.headlines.is_as_accurate", lambda sheet, line: True)
    (line,) = headlines([sheet])
    for row in line.rows:
        point, accuracy, energy, speed, *_ = row.cells
        assert point.text == "density 0.5, block 16, rate 1.0"
        assert (accuracy.text, energy.text, speed.text) == ("1.10", times(2), times(2))
        assert all(cell.href.endswith("record.json") for cell in row.cells[:4])
