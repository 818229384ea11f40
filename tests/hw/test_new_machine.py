"""A machine known only from a new file, and operations that no coefficient was fitted on.

Facts: PrincetonUniversity/LLMCompass at b95c6c95, ae/figure5, measured on an AMD MI210 and on
A100s. Its matrix products are fp16, the other operations on the MI210 fp32 (as its own
simulation of them assumes). Nothing of the MI210 was seen by the calibration.
"""

import statistics
from pathlib import Path

import pytest

from hw.machine import load_machine
from hw.validate import COLUMNS, validate

MACHINE = Path(__file__).parent / "machines" / "mi210.toml"
#: Rows, inner and outer side, milliseconds.
MATMUL = [
    (32, 12288, 0.5493),
    (64, 12288, 0.5584),
    (128, 12288, 0.5932),
    (256, 12288, 0.7699),
    (512, 12288, 1.4054),
    (1024, 12288, 2.7173),
    (2048, 12288, 5.3905),
    (4096, 12288, 10.4494),
    (8192, 12288, 20.7849),
    (16384, 12288, 41.1353),
    (32768, 12288, 81.4046),
    (8192, 32, 0.0333),
    (8192, 64, 0.0345),
    (8192, 128, 0.0396),
    (8192, 256, 0.0485),
    (8192, 512, 0.0863),
    (8192, 1024, 0.195),
    (8192, 2048, 0.5822),
    (8192, 4096, 2.2901),
    (8192, 8192, 9.415),
    (8192, 16384, 36.7552),
    (8192, 32768, 146.255),
]
#: Rows and columns of the row operations, thousand million entries a second.
ROWS = [(4096, 2**i) for i in range(5, 16)] + [(2**i, 4096) for i in range(5, 16)]
SOFTMAX = [
    5.39,
    10.37,
    13.49,
    36.05,
    60.66,
    87.52,
    75.18,
    80.06,
    70.97,
    66.23,
    61.59,
    4.822,
    9.012,
    15.82,
    28.28,
    43.76,
    60.66,
    72.55,
    80.28,
    84.78,
    86.98,
    88.02,
]
LAYER_NORM = [
    2.37,
    4.729,
    9.176,
    18.44,
    31.6,
    52.45,
    83.74,
    89.41,
    86.4,
    86.36,
    78.77,
    3.886,
    6.742,
    11.78,
    22.65,
    39.53,
    58.88,
    75.69,
    89.33,
    97.43,
    101.1,
    104.1,
]
#: The same of 2 ** 10, 2 ** 11 ... entries.
GELU = [
    0.0472,
    0.09761,
    0.1952,
    0.3905,
    0.7899,
    1.562,
    3.089,
    6.108,
    11.82,
    21.56,
    37.27,
    59.43,
    87.96,
    114.6,
    133.5,
    147,
    151.1,
    152.9,
    154,
    154.4,
]
#: A block of GPT-3 on four A100s, 8 sequences of 2048 tokens, milliseconds: the sum of its parts.
BLOCK_MS = 65.78
#: The goal for a machine known only from its file.
GOAL = 0.20


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    lines = [",".join(COLUMNS)]

    def add(machine, op, dtype, m, k, n, metric, value, mode="dense"):
        lines.append(f"{len(lines)},{machine},{op},{dtype},{m},{k},{n},,,{mode},{metric},{value}")

    for m, k, ms in MATMUL:
        add("MI210", "matmul", "FP16", m, k, k, "latency", ms)
    for op, rates in (("softmax", SOFTMAX), ("layernorm", LAYER_NORM)):
        for (m, n), rate in zip(ROWS, rates, strict=True):
            add("MI210", op, "FP32", m, "", n, "throughput", rate)
    for i, rate in enumerate(GELU):
        add("MI210", "gelu", "FP32", 2 ** (10 + i), "", "", "throughput", rate)
    block = ("FP16", 8 * 2048, 12288, 2048, "latency", BLOCK_MS, "tp4")
    add("A100 80GB (LLMCompass testbed)", "transformer block", *block)
    table = tmp_path_factory.mktemp("new") / "table.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return validate(table, machines={"MI210": str(MACHINE)})


def test_every_row_is_predicted(result):
    assert len(result.rows) == 22 + 44 + 20 + 1
    assert all(row.reason == "" for row in result.rows)


@pytest.mark.parametrize("op", ["matmul", "softmax", "gelu", "layernorm"])
def test_operations_on_an_unseen_gpu_are_within_the_goal(result, op):
    assert result.groups[f"MI210 {op}"].median_error <= GOAL


def test_all_rows_of_the_unseen_gpu_are_within_the_goal(result):
    """Its smallest products read their weights at a third of the memory's rate.

    A norm of many short rows takes twice what is predicted: 4,096 rows of 32 entries 55 us, as many
    bytes in 32 rows 34 us. On the A100 both take the same, so that the file cannot say why.
    """
    errors = [abs(row.error) for row in result.rows if row.group.startswith("MI210")]
    assert statistics.median(errors) <= GOAL


def test_intervals_are_three_times_as_wide_on_it(result):
    rows = [row for row in result.rows if row.group.startswith("MI210")]
    assert all("no measurement on AMD MI210" in row.outside for row in rows)
    inside = sum(row.low <= row.measured <= row.high for row in rows)
    assert inside >= 0.75 * len(rows)


def test_a_block_of_gpt_3_on_four_a100s(result):
    assert result.groups["a100 80GB transformer block"].median_error <= 0.10


def test_the_file_states_only_what_differs():
    machine = load_machine(MACHINE)
    assert machine.n_sm == 104
    assert machine.hbm_fraction == load_machine("a100").hbm_fraction
