"""``tessera hw``."""

import json

import pytest
from typer.testing import CliRunner

from apps.suite.hw_cli import app


def run(*arguments):
    return CliRunner().invoke(app, arguments)


def test_machines():
    text = run("machines").output
    assert "ipu_bow     Graphcore Bow (Mk2, wafer on wafer): 1472 units at 1.85 GHz" in text
    rows = json.loads(run("machines", "--json").output)
    assert {"a100", "tpu_v3"} <= {row["name"] for row in rows}
    assert "gcnotebooks SpMM.ipynb" in run("machines", "-v").output


def test_cost_of_one_op_on_all_machines_and_on_one():
    op = "matmul m=256 k=256 n=64 dtype=fp16"
    assert "tpu_v3" in run("cost", "--op", op).output
    (row,) = json.loads(run("cost", "--op", op, "-m", "ipu_bow", "--json").output)
    assert row["machine"] == "ipu_bow"
    assert row["n_mac"] == 256 * 256 * 64
    assert row["time_s"] == pytest.approx(sum(row["parts_s"].values()))
    assert row["energy_j"]["static"] > 0
    low, high = row["time_interval_s"]
    assert low < row["time_s"] < high
    assert "rows 256 (measured: 1024 to 8192)" in row["outside_calibration"]
    assert "outside the calibrated range" in run("cost", "--op", op, "-m", "ipu_bow").output
    inside = "matmul m=2048 k=2048 n=64 dtype=fp16"
    assert "outside" not in run("cost", "--op", inside, "-m", "ipu_bow").output
    assert "cycles" in run("cost", "--op", op, "-m", "ipu_bow", "-v").output


def test_an_op_too_large_for_a_machine_is_told_so():
    op = ("cost", "--op", "add m=200000 n=100000 dtype=fp16")
    rows = {row["machine"]: row for row in json.loads(run(*op, "--json").output)}
    # three tensors of 2e10 entries: 120 GB, on 1472 tiles beside the code
    assert rows["a100"]["peak_memory_byte"] == 1.2e11
    assert not rows["a100"]["fits"]
    assert rows["ipu_bow"]["peak_memory_byte"] == pytest.approx(1.2e11 / 1472 + 65536)
    text = run(*op, "-m", "a100").output
    assert (
        "does not fit: operands, result and temporaries take 120 GB, the machine has 80 GB; "
        "at least 2 chips would hold it"
    ) in text
    assert "take 81.6 MB per tile, the machine has 639 kB" in run(*op, "-m", "ipu_bow").output
    assert "at least 2 chips" in run(*op, "-m", "a100", "--explain").output
    (row,) = json.loads(run("cost", "--op", "add m=2 n=2", "-m", "a100", "--json").output)
    assert row["fits"]
    assert row["peak_memory_byte"] == 48


def test_a_model_that_spills_says_how_and_what_fits_nowhere_is_refused(tmp_path):
    small = tmp_path / "small.toml"
    source = 'mark = "derived", source = "a small one"'
    small.write_text(
        f'name = "small"\nlike = "ipu_bow"\nn_tile = {{ value = 48, {source} }}\n'
        f"[peak_flop_per_s]\nfp16 = {{ value = 11.4e12, {source} }}\n"
    )
    model = ("cost", "--model", "mlp width=1536 depth=3 batch=256 dtype=fp16", "-m", str(small))
    plain = run(*model)
    assert plain.exit_code == 0
    assert plain.output.startswith("small, like Graphcore Bow")
    assert "DOES NOT FIT" in plain.output
    assert "spill, or at least 3 chips" in " ".join(plain.output.split())
    (row,) = json.loads(run(*model, "--spill", "--json").output)
    assert row["fits"]
    beside = row["streaming"]
    assert beside["in_byte"] > beside["out_byte"] > 0
    assert beside["capacity_byte"] == 64e9
    assert "in the memory beside the chip" in run(*model, "--spill").output
    refused = run("cost", "--model", "mlp width=6000 depth=1", "-m", str(small), "--spill")
    assert refused.exit_code != 0
    assert "memory exceeded on small: op" in refused.output
    # what fits elsewhere is told all the same
    both = run(*model[:3], "-m", str(small), "-m", "a100", "--model", "mlp width=6000 depth=1",
               "--spill")  # fmt: skip
    assert both.exit_code != 0
    assert "NVIDIA A100" in both.output
    assert "memory exceeded on small" in both.output
    assert run("cost", "--op", "gelu m=9 n=9 dtype=fp32", "--spill").exit_code != 0


def test_time_to_train_takes_measured_steps_and_none_outside_them():
    model = ("--model", "mlp width=64 depth=2 batch=16", "--chips", "1,4,64")
    steps = ("--steps", "16:1000,64:400")
    assert "batch 1,024: no steps measured there" in run("scale", *model, *steps).output
    one, four, many = json.loads(run("scale", *model, *steps, "--json").output)
    assert one["time_to_train_s"] == pytest.approx(1000 * one["time_s"])
    assert four["time_to_train_s"] == pytest.approx(400 * four["time_s"])
    assert many["time_to_train_s"] is None


def test_scale_from_one_chip_to_many():
    model = ("--model", "mlp width=256 depth=4 batch=64 dtype=fp16")
    text = run("scale", *model, "--chips", "1,4,64").output
    assert "batch of 64 on each replica" in text
    assert "100.0%" in text
    rows = json.loads(
        run("scale", *model, "--chips", "1,8", "--tensor", "2", "--pipeline", "2", "--json").output
    )
    assert [row["n_chip"] for row in rows] == [1, 8]
    assert rows[0]["efficiency"] == pytest.approx(1)
    assert rows[1]["layout"] == {"data": 2, "pipeline": 2, "tensor": 2, "n_micro": 8}
    assert rows[1]["efficiency"] < 1
    # 4 layers of 256 x 256 and their biases
    assert "gradients 526 kB" in text
    slip = run("scale", *model, "--tensor", "0")
    assert slip.exit_code == 2
    assert "tensor and pipeline must be at least 1, got 0 and 1" in slip.stderr
    assert run("scale", *model, "--pipeline", "-1").exit_code == 2
    slip = run("scale", *model, "--chips", "6", "--tensor", "4")
    assert slip.exit_code == 2
    assert "multiples of tensor x pipeline = 4, got '6'" in slip.stderr


def test_explain_names_plans_terms_and_the_break_even_density(tmp_path):
    op = "spmm m=512 k=512 n=64 block=16 density=0.1 dtype=fp16"
    page = tmp_path / "op.html"
    text = run("cost", "--op", op, "-m", "ipu_bow", "--explain", "--html", str(page)).output
    for words in ("plan        static", "next best   static", "binds", "reduction (compute)"):
        assert words in text
    assert "static beats dense below" in text
    assert "<svg" in page.read_text()
    assert "static at density 0.25" in page.read_text()


def test_model_writes_a_page_and_a_trace(tmp_path):
    page, events = tmp_path / "model.html", tmp_path / "trace.json"
    model = ("--model", "mlp width=64 depth=2 batch=16", "-m", "ipu_bow")
    text = run("cost", *model, "--html", str(page), "--trace", str(events)).output
    assert "train_step" in text
    assert "roofline" in page.read_text()
    assert {event["ph"] for event in json.loads(events.read_text())["traceEvents"]} == set("MXC")
    (entry,) = json.loads(run("cost", *model, "--json").output)
    assert entry["machine"] == "ipu_bow"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "cost: give either --op or --model"),
        (("--op", "gelu m=3 n=3", "--trace", "x"), "--trace needs a --model"),
        (("--model", "mlp width=8", "--trace", "x"), "--trace holds one machine, got"),
        (("--op", "matmul m=3"), "error: matmul: k, n missing"),
        (
            ("--op", "matmul m=3 k=3 n=3", "-m", "cray"),
            "error: no machine 'cray'; known are a100, ",
        ),
        (("--op", "add m=3 n=3", "-m", "cray"), "tpu_v3; a path to a machine file ends in .toml"),
    ],
)
def test_slips_end_with_a_sentence_and_code_2(arguments, sentence):
    result = run("cost", *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.output


TABLE = """id,machine,op,dtype,m,k,n,block,density,mode,metric,value,unit
ONE,"Bow IPU (1 chip, 1472 tiles)",matmul,FP16,1024,1024,1024,,1,dense,throughput,100,TFLOP/s
TWO,Abacus,matmul,FP16,1024,1024,1024,,1,dense,throughput,1,TFLOP/s
"""


def test_validate_prints_groups_and_writes_rows(tmp_path):
    """The figures of this table are made up: only the way through is tested here."""
    table, answer = tmp_path / "table.csv", tmp_path / "answer.json"
    table.write_text(TABLE)
    result = run("validate", "--table", str(table), "--json", str(answer))
    assert result.exit_code == 0, result.output
    rows = {row["id"]: row for row in json.loads(answer.read_text())["rows"]}
    one = rows["ONE"]
    assert one["error"] == pytest.approx(one["predicted"] / one["measured"] - 1)
    assert rows["TWO"]["predicted"] is None
    assert rows["TWO"]["reason"]


def test_validate_without_a_table_says_so(tmp_path):
    result = run("validate", "--table", str(tmp_path / "none.csv"))
    assert result.exit_code == 2
    assert "none.csv does not exist" in result.stderr
