import json

import pytest
from typer.testing import CliRunner

from apps.chemistry.cli import app
from apps.chemistry.datasets import pocket

runner = CliRunner()
SMALL = ["--set", "model.d_hidden=16", "--set", "model.n_layer=2", "--set", "train.n_epoch=2"]


@pytest.fixture(scope="module")
def csv_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "small.csv"
    file.write_text(pocket.generate(80, 20, 30).csv_text().replace("smiles,", "SMI,", 1))
    return file


def train(csv_file, out, *more):
    columns = ["--smiles", "SMI", "--target", "pk", "--split-column", "split"]
    return runner.invoke(
        app, ["train", "--data", str(csv_file), *columns, "--out", str(out), *SMALL, *more]
    )


def test_train_cost_and_predict(csv_file, tmp_path):
    done = train(csv_file, tmp_path / "run", "--seeds", "2", "--variant", "dense-bf16")
    assert done.exit_code == 0, done.output
    assert (
        "small.csv (pk): 80 train, 20 valid, 30 test; variant dense-bf16; seed 0, 1" in done.output
    )
    assert "svm_ecfp4" in done.output
    assert "+-" in done.output
    assert "ipu_gc200" in done.output
    one = tmp_path / "run" / "seed-1"
    assert json.loads((one / "record.json").read_text())["seed"] == 1

    done = runner.invoke(app, ["cost", "--run", str(one), "--machine", "a100", "--json"])
    assert done.exit_code == 0, done.output
    assert [e["phase"] for e in json.loads(done.output)] == ["train_step", "inference"]

    # without --smiles the column is the one of the training
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("SMI\nCCO\nC1CC(\n")
    done = runner.invoke(app, ["predict", str(one), str(source), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "1 rows predicted (0 fixed), 1 invalid" in done.output
    assert out.read_text().startswith(
        "SMI,predicted_pk,predicted_pk_nM,sd_pk,lower_pk,upper_pk,nearest"
    )

    # with a drawing, and the sentence that adds up
    done = runner.invoke(app, ["explain", str(one), "CCO", "c1ccccc1O", "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.output.count("(scaffold)") == 2
    assert (tmp_path / "explain-2.svg").read_text().startswith("<?xml")
    done = runner.invoke(app, ["explain", str(one), "CCO", "--target", "pK"])
    assert done.exit_code == 2
    assert "the model predicts pk; which one? (--target), got 'pK'" in done.stderr


def test_units_and_relations_are_settings(csv_file, tmp_path):
    text = "SMI,pk,split,rel\n" + "".join(
        f"{'C' * i}N,{10**i % 977},{part},{'>' if i % 7 == 0 else ''}\n"
        for i in range(1, 40)
        for part in (["valid"] if i % 5 == 0 else ["train"])
    )
    file = tmp_path / "nm.csv"
    file.write_text(text)
    more = ["--unit", "nM", "--relation-column", "rel", "--json", "--quiet"]
    done = train(file, tmp_path / "run", *more)
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["data"]["unit"] == "pK (pk)"
    assert (record["config"]["data"]["unit"], record["data"]["n_train"]) == ("nM", 32)


def test_benchmark_names_an_unknown_suite():
    done = runner.invoke(app, ["benchmark", "--suite", "moleculeac"])
    assert done.exit_code == 2
    assert "no suite is named 'moleculeac'; did you mean 'moleculeace'?" in done.stderr


def test_json_is_the_record(csv_file, tmp_path):
    done = train(csv_file, tmp_path / "run", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((tmp_path / "run" / "record.json").read_text())


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["--set", "train.n_epoc=3"],
            "unknown key 'n_epoc' in --set [train]; did you mean 'n_epoch'?",
        ),
        (["--variant", "dense-fp23"], "no variant is named 'dense-fp23'; did you mean"),
        (["--target", "affinity"], "small.csv: no column 'affinity'; it has 'SMI'"),
        (["--data", "nothing.csv"], "nothing.csv"),
        (["--config", "nothing.toml"], "cannot read the configuration nothing.toml"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(csv_file, tmp_path, more, sentence):
    done = train(csv_file, tmp_path / "run", *more)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.output


def test_predict_names_a_missing_run(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("smiles\nCCO\n")
    done = runner.invoke(
        app, ["predict", str(tmp_path / "no"), str(source), "-o", str(tmp_path / "o.csv")]
    )
    assert done.exit_code == 2
    assert "there is no checkpoint" in done.stderr
