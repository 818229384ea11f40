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


def test_the_study_of_both_sciences_has_two_hundred_runs_and_shares_its_references():
    study = read_study(STUDIES / "two_sciences.toml")
    points = resolve(study, APPLICATIONS)
    assert {point.application for point in points} == set(APPLICATIONS)
    assert len({point.key for point in points}) >= 200
    # the static runs of the second sweep are those of the first, and dense ones have no blocks
    assert len(points) > len({point.key for point in points})
    levers = {key.rpartition(".")[2] for point in points for key in point.levers}
    named = {"density", "block", "weight_format", "gradient_format", "method", "optimizer"}
    assert named <= levers


def test_what_is_kept_of_a_study_is_written_where_it_is_asked_for(tmp_path, capsys):
    (tmp_path / "map.toml").write_text(MAP)
    out = tmp_path / "out"
    assert main(["study", str(tmp_path / "map.toml"), "--out", str(out)]) == 0
    assert main(["study", "export", str(out), "--to", str(tmp_path / "kept")]) == 2
    assert "holds no finished run; run the study first" in capsys.readouterr().err
