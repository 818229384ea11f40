"""The page: what it says, that it is whole without a network, and that nothing breaks out of it."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from apps.lab.config import Config
from apps.lab.figures import new_figure, save_svg
from apps.lab.record import new_record, read_record, write_record
from apps.lab.report import summary_rows, write_report
from apps.lab.variant import VARIANTS, Variant
from core.errors import DataError

X = "\N{MULTIPLICATION SIGN}"
VOID = {"meta", "link", "br", "img", "hr", "input", "source"}


class Settings(Config):
    variant: Variant = VARIANTS["dense-fp32"]
    note: str = "<script>alert('settings')</script>"


class Page(HTMLParser):
    """Collects addresses, ids and text; fails on a tag that closes what it did not open."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.ids, self.tags, self.words = [], [], Counter(), []
        self.open = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)
            assert not name.startswith("on")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def cost(variant, machine, phase, time_s, energy_j, fits=True):
    return {
        "machine": machine,
        "phase": phase,
        "variant": variant,
        "time_s": time_s,
        "energy_j": energy_j,
        "peak_tile_memory_byte": 200_000,
        "fits": fits,
        "time_interval_s": (0.8 * time_s, 1.25 * time_s),
        "energy_by": {
            "compute": 0.5 * energy_j,
            "local_memory": 0.25 * energy_j,
            "exchange": 0.125 * energy_j,
            "off_chip": 0.0,
            "static": 0.125 * energy_j,
        },
        "utilisation": 0.25,
    }


def make_run(folder, variant="dense-fp32", *, rmse=0.4, time_s=1e-3, energy_j=0.01, **changes):
    folder.mkdir(parents=True)
    figure, (axes,) = new_figure()
    axes.plot([0, 1], [0, 1])
    save_svg(figure, folder / "curve.svg")
    costs = [
        cost(variant, machine, phase, factor * time_s, energy_j)
        for machine, factor in (("ipu_gc200", 1.0), ("a100", 2.0))
        for phase in ("inference", "train_step")
    ]
    given = {
        "application": "toy",
        "command": "toy train",
        "config": Settings(variant=VARIANTS.get(variant, variant)),
        "seed": 0,
        "device": "cpu",
        "data": {
            "name": "toy_set",
            "source": "embedded",
            "sha256": "f" * 64,
            "n_train": 1000,
            "n_valid": 100,
            "n_test": 100,
            "unit": "<pK>",
        },
        "accuracy": {"test": {"rmse": rmse, "r2": 0.9}, "train": {"rmse": 0.1, "r2": 0.99}},
        "members": {"graph": {"test": {"rmse": 0.45}}},
        "baselines": {
            "train_mean": {"test": {"rmse": 1.25, "r2": 0.0}},
            "svm": {"test": {"rmse": 0.5, "r2": 0.8}},
        },
        "throughput": {"item": "row", "train_item_per_s": 512.0, "infer_item_per_s": 4096.0},
        "cost": costs,
        "figures": [
            {
                "file": "curve.svg",
                "title": "A <title>",
                "caption": "What it shows.",
                "wrong_if": "it falls.",
            }
        ],
        **changes,
    }
    write_record(folder, new_record(**given))
    return folder


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path / "runs" / "a"),
        make_run(
            tmp_path / "runs" / "b & c",
            "sparse-16x16-75",
            rmse=0.42,
            time_s=5e-4,
            energy_j=0.0025,
        ),
    ]


def page_of(runs, out, title="A <b>title</b>"):
    return Page(write_report(runs, out, title).read_text())


def test_it_answers_in_words_with_numbers(runs, tmp_path):
    text = page_of(runs, tmp_path / "report.html").text
    assert (
        "dense-fp32 reaches a test RMSE of 0.400 , ahead of the best baseline, "
        "SVM at 0.500 (20 % lower)."
    ) in text
    assert (
        "sparse-16x16-75 : RMSE 0.420 (5.0 % higher than dense-fp32); in one training step, "
        f"2.00{X} the speed and 4.00{X} the energy efficiency."
    ) in text
    assert "fastest on Graphcore GC200 ( 1.00 ms )" in text
    for part in ("train mean", "its graph", "What it shows.", "Looks wrong if it falls.", "f" * 64):
        assert part in text
    assert "512 row/s in training, 4,096 in inference" in text
    assert f"2.00{X} · 4.00{X}" in text  # the table of gains
    assert "800 µs to 1.25 ms" in text  # the table of costs


def test_a_table_of_many_metrics_is_turned_on_its_side(tmp_path):
    many = {"rmse": 0.25} | {f"skill_{i}": 100.0 + i for i in range(11)}
    folder = make_run(tmp_path / "many", accuracy={"test": many})
    text = write_report([folder], tmp_path / "report.html", "t").read_text()
    table = re.search("<table>(.*?)</table>", text, re.S)[1]
    rows = re.findall(r"<tr[ >].*?</tr>", table, re.S)
    cells = [re.sub("<[^>]+>", " ", row).split() for row in rows]
    assert cells[0] == ["test", "dense-fp32", "its", "graph", "train", "mean", "SVM"]
    assert cells[1] == ["RMSE", "0.250", "0.450", "1.25", "0.500"]
    assert cells[-2] == ["skill", "10", "110", *3 * ["\N{EN DASH}"]]
    assert cells[-1][0] == "R²"  # which the baselines alone have
    assert len(rows) == 1 + 13


def test_it_needs_nothing_from_outside(runs, tmp_path):
    out = tmp_path / "report.html"
    page = page_of(runs, out)
    for address in page.addresses:
        assert "://" not in address
        assert not address.startswith(("//", "data:text", "javascript:"))
        if address.startswith("#"):
            assert address[1:] in page.ids, address
        elif not address.startswith("data:image/"):
            assert (out.parent / unquote(address)).is_file(), address
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == 0
    text = out.read_text()
    assert "@import" not in text
    assert "url(http" not in text


def test_every_cost_and_accuracy_links_to_its_record(runs, tmp_path):
    links = Counter(page_of(runs, tmp_path / "report.html").addresses)
    for folder in ("runs/a", "runs/b%20%26%20c"):
        assert links[f"{folder}/record.json"] > 30


def test_ids_of_drawings_do_not_collide(runs, tmp_path):
    page = page_of(runs, tmp_path / "report.html")
    assert page.tags["svg"] >= 2 + 2 + 1  # figures, scatters, the mark
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []


def test_nothing_breaks_out_of_its_place(runs, tmp_path):
    page = page_of(runs, tmp_path / "report.html")
    assert "A <b>title</b>" in page.text
    assert "<script>alert('settings')</script>" in page.text
    assert "targets in <pK>" in page.text


def test_seeds_share_a_line_as_mean_and_deviation(tmp_path):
    runs = [make_run(tmp_path / f"s{i}", rmse=r, seed=i) for i, r in enumerate((0.3, 0.4, 0.5))]
    text = page_of(runs, tmp_path / "report.html").text
    assert "0.400 ± 0.10" in text
    assert text.count("seed 1") == 1
    assert summary_rows(runs)[0][:4] == ("toy", "dense-fp32", "RMSE 0.400", "SVM 0.500")


def test_a_variant_that_does_not_fit_and_a_scheme_that_is_replaced(tmp_path):
    costs = [
        cost("dense-fp32", "ipu_gc200", "inference", 1e-3, 1e-3, fits=False),
        cost("exact_128", "ipu_gc200", "inference", 0.1, 0.5),
        cost("dense-fp32", "unheard_of", "inference", 2e-3, 1e-3),
    ]
    text = page_of([make_run(tmp_path / "a", cost=costs)], tmp_path / "report.html").text
    assert "does not fit" in text
    assert "exact 128 runs at 0.010" + X + " the speed of dense-fp32" in text
    assert "unheard_of" in text
    assert "is fastest on unheard_of ( 2.00 ms )" in text  # where it does not fit does not count


def test_a_model_behind_a_baseline_is_not_called_ahead(tmp_path):
    text = page_of([make_run(tmp_path / "a", rmse=0.6)], tmp_path / "report.html").text
    assert "not ahead of the best baseline, SVM at 0.500 (20 % higher)." in text


def test_the_barest_record_still_makes_a_page(tmp_path):
    bare = {"members": {}, "baselines": {}, "cost": [], "figures": [], "throughput": None}
    run = make_run(tmp_path / "a", accuracy={}, **bare)
    assert "toy · toy set" in page_of([run], tmp_path / "report.html").text
    assert summary_rows([run])[0][0] == "toy"


def test_a_drawing_that_is_lost_or_outside_leaves_a_note(tmp_path):
    run = make_run(tmp_path / "a")
    (run / "curve.svg").unlink()
    assert "No drawing: cannot read the figure" in page_of([run], tmp_path / "r.html").text
    outside = {"file": "../a/record.json", "title": "t", "caption": "c", "wrong_if": "w"}
    other = make_run(tmp_path / "b", figures=[{**outside, "file": "../secret.svg"}])
    assert "lies outside the run folder" in page_of([other], tmp_path / "r.html").text


def test_bars_are_as_long_as_the_numbers_say(runs, tmp_path):
    from apps.lab.report.page import _read, _studies

    (study,) = _studies([_read(run, tmp_path / "r.html") for run in runs])
    dense, sparse = study.costs.bars("inference", "ipu_gc200", "time_s")
    assert (dense.percent, sparse.percent) == pytest.approx((80.0, 40.0))  # the whisker is longest
    assert dense.interval == pytest.approx((64.0, 100.0))
    dense, sparse = study.costs.bars("inference", "ipu_gc200", "energy_j")
    assert sum(percent for _, percent, _ in dense.parts) == pytest.approx(100.0)
    assert sum(percent for _, percent, _ in sparse.parts) == pytest.approx(25.0)


def test_the_same_records_are_the_same_page(runs, tmp_path):
    first = write_report(runs, tmp_path / "r.html", "t").read_bytes()
    assert write_report(runs, tmp_path / "r.html", "t").read_bytes() == first


def test_no_run_and_no_record(tmp_path):
    with pytest.raises(DataError, match="name at least one run folder"):
        write_report([], tmp_path / "r.html", "t")
    with pytest.raises(DataError, match="cannot read the record"):
        write_report([Path(tmp_path)], tmp_path / "r.html", "t")


def test_a_record_shows_accuracy_baselines_and_costs(tmp_path):
    worse = {"<b>mean</b>": {"test": {"rmse": 1.25}}}
    html = read_record(make_run(tmp_path / "run", baselines=worse))._repr_html_()
    text = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html))
    assert "toy: dense-fp32, seed 0" in text
    assert "dense-fp32 0.400 0.900" in text
    assert "&lt;b&gt;mean&lt;/b&gt; 1.25" in text
    assert "<b>" not in html
    assert "Graphcore GC200, inference step 1.00 ms 800 µs to 1.25 ms 10.0 mJ 200 kbyte" in text
