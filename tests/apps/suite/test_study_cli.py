"""`tessera study`: a file runs, `report` reads, and a user's error is one sentence."""

from pathlib import Path

from apps.suite.cli import main
from apps.suite.pool import APPLICATIONS
from apps.suite.study import read_study
from apps.suite.study.spec import resolve

STUDIES = Path(__file__).resolve().parents[3] / "studies"
MAP = "title = 'Only the map'\n[break_even]\nwidth = [64]\nblock = [16]\ndensity = [0.5]\n"


def test_a_file_runs_and_report_reads_it_again(tmp_path, capsys):
    file, out = tmp_path / "map.toml", tmp_path / "out"
    file.write_text(MAP)
    assert main(["study", str(file), "--out", str(out)]) == 0
    page = (out / "report.html").read_bytes()
    assert b"Only the map" in page
    assert b"Where sparse beats dense" in page
    (out / "report.html").unlink()
    assert main(["study", "report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == page
    assert main(["study", "--out", str(out), str(file)]) == 2
    assert "already holds a study; continue it with --resume" in capsys.readouterr().err
    assert main(["study", "run", str(file), "--out", str(out), "--resume", "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_errors_are_one_sentence(tmp_path, capsys):
    assert main(["study", str(tmp_path / "no.toml")]) == 2
    assert "error: cannot read the study" in capsys.readouterr().err
    assert main(["study", "report", str(tmp_path)]) == 2
    assert "error: cannot read the study" in capsys.readouterr().err


def test_the_study_that_is_shipped_asks_for_what_there_is():
    points = resolve(read_study(STUDIES / "first.toml"), APPLICATIONS)
    assert {point.application for point in points} == set(APPLICATIONS)
    # chemistry: 2 x 2 x 2 x 2 x 2 seeds, weather: 2 x 2 x 2 x 2; dense ones have no blocks
    assert len(points) == 32 + 16
    assert len({point.key for point in points}) == 24 + 12
