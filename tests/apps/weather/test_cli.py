import json

from typer.testing import CliRunner

from apps.weather.cli import app

TINY = ["model.resolution=T5L4", "model.n_longwave=8", "model.n_shortwave=8", "start=rest"]


def call(command, *settings, out, extra=()):
    arguments = [command, "--out", str(out), "--device", "cpu", *extra]
    for setting in settings:
        arguments += ["--set", setting]
    return CliRunner().invoke(app, arguments)


def test_simulate_prints_what_it_recorded(tmp_path):
    done = call("simulate", *TINY, "n_day=1", out=tmp_path / "run", extra=["--json"])
    assert done.exit_code == 0
    record = json.loads(done.stdout)
    assert record["command"] == "simulate"
    assert record["config"]["model"]["resolution"] == "T5L4"
    assert record["accuracy"]["test"]["olr_w_m2"] > 100.0


def test_a_misspelt_key_and_a_wrong_grid_end_with_one_sentence(tmp_path):
    done = call("simulate", "n_days=1", out=tmp_path / "run")
    assert done.exit_code == 2
    assert "unknown key 'n_days' in --set; did you mean 'n_day'?" in done.stderr
    done = call("simulate", "model.resolution=T22L8", out=tmp_path / "run")
    assert done.exit_code == 2
    assert "truncation must be one of" in done.stderr
    assert "Traceback" not in done.stderr


def test_assimilate_prints_a_table(tmp_path):
    tiny = [
        "model.resolution=T10L4", "model.physics=held-suarez", "start=rest", "n_member=3",
        "member_spacing_day=1", "cycle_h=12", "n_day=1", "n_withheld_day=1", "forecast_day=1",
    ]  # fmt: skip
    done = call("assimilate", *tiny, out=tmp_path / "run")
    assert done.exit_code == 0
    assert "temperature, error / climate" in done.stdout
    assert "downstream at 12 h: " in done.stdout


def test_scores_of_no_network_end_with_one_sentence(tmp_path):
    for command in ("score", "climate"):
        done = call(command, out=tmp_path / "run", extra=["--emulator", str(tmp_path / "none")])
        assert done.exit_code == 2
        assert "there is no checkpoint" in done.stderr
        assert not (tmp_path / "run").exists()


def test_cost_takes_a_variant_and_a_setting_wins_over_it():
    runner = CliRunner()
    named = runner.invoke(app, ["cost", "--variant", "dense-bf16", "--machine", "ipu_bow"])
    assert named.exit_code == 0, named.output
    assert "dense-bf16" in named.output
    both = ["cost", "--variant", "dense-bf16", "--set", "variant=sparse-16x16-75"]
    assert "sparse-16x16-75 " in runner.invoke(app, [*both, "--machine", "ipu_bow"]).output
