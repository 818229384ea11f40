import copy

import pytest

from apps.chemistry.benchmark import benchmark_markdown, merge_documents
from apps.chemistry.benchmark.summary import benchmark_summary
from core.errors import DataError


def document(seed, shift):
    """A document of two sets, made up; every error of ours moves by `shift` times the set."""
    errors = {
        f"s{i}": {
            "SVM": {"rmse": 0.7},
            "kernel": {"rmse": 0.6, "rmse_seen": 0.5},
            "hybrid": {"rmse": 0.59 + shift * i, "rmse_seen": 0.4 + shift},
            "publ. SVM": {"rmse": 0.8},
        }
        for i in (1, 2)
    }
    one = {"low": -0.02, "high": 0.01, "n_better": 2, "n": 2}
    pairs = [
        ("hybrid", "kernel", "all"),
        ("hybrid", "kernel", "seen"),
        ("hybrid", "svm_ecfp4", "all"),
    ]
    return {
        "schema": "tessera.chemistry.benchmark/1",
        "seeds": [seed],
        "config": {"n_fold": 5, "train": {"n_epoch": 10}},
        "n_together": 2,
        "weights": {"kernel": 0.4 + shift, "graph": 0.6 - shift},
        "cpu_s": {"networks": 60.0 + 60.0 * seed},
        "errors": errors,
        "differences": [
            {"ours": a, "other": b, "molecules": m, "difference": -0.01 + shift, **one}
            for a, b, m in pairs
        ],
    }  # fmt: skip


@pytest.fixture
def merged():
    return merge_documents([document(3, 0.02), document(1, 0.0)])


def test_means_are_over_the_seeds_and_the_spread_is_of_the_mean_over_the_sets(merged):
    assert merged["seeds"] == [1, 3]
    assert merged["errors"]["s1"]["hybrid"]["rmse"] == pytest.approx(0.60)  # .59 and .61
    assert merged["errors"]["s2"]["hybrid"]["rmse"] == pytest.approx(0.61)  # .59 and .63
    # the means over both sets are .59 and .62
    assert merged["spread"]["hybrid"]["rmse"] == pytest.approx(0.03 / 2**0.5, abs=1e-4)
    assert merged["spread"]["kernel"]["rmse"] == 0.0
    assert "publ. SVM" not in merged["spread"]
    assert merged["weights"] == {"kernel": 0.41, "graph": 0.59}
    assert merged["cpu_s"] == {"networks": 180.0}


def test_each_difference_keeps_that_of_every_seed(merged):
    whole, seen, svm = merged["differences"]
    assert whole["difference"] == 0.0
    assert whole["by_seed"] == [
        {"seed": 1, "difference": -0.01, "low": -0.02, "high": 0.01},
        {"seed": 3, "difference": 0.01, "low": -0.02, "high": 0.01},
    ]
    # mean errors of .60 and .61 against .60; of .41 against .5; of .60 and .61 against .7
    assert [(one["n_better"], one["n"]) for one in (whole, seen, svm)] == [(0, 2), (2, 2), (2, 2)]


def test_tables_of_merged_documents(merged):
    lines = benchmark_markdown(merged).splitlines()
    assert "| set | SVM | kernel | hybrid | publ. SVM |" in lines
    assert "| mean | 0.700 | 0.600 | 0.605 | 0.800 |" in lines
    assert "| s.d. of it, 2 seeds | 0.000 | 0.000 | 0.021 | - |" in lines
    (head,) = [line for line in lines if line.startswith("| mean rmse, difference")]
    assert "| mean of seeds | seed 1, 95 % interval | seed 3, 95 % interval | better on |" in head
    row = (
        "| hybrid - kernel | all | +0.0000 | -0.0100 [-0.0200, +0.0100] "
        "| +0.0100 [-0.0200, +0.0100] | 0 of 2 |"
    )
    assert row in lines
    assert "seeds 1, 3" in benchmark_summary(merged)


def test_one_document_is_left_as_it_is():
    one = document(0, 0.0)
    assert merge_documents([one]) == one
    assert "s.d." not in benchmark_markdown(one)


def changed(seed, **values):
    return copy.deepcopy(document(seed, 0.0)) | values


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (changed(0), r"another seed in each document, got \[0, 0\]; drop one"),
        (changed(1, seeds=[1, 2]), r"documents of one seed each, got one of \[1, 2\]"),
        (
            changed(1, config={"n_fold": 3, "train": {"n_epoch": 10}}),
            "of seeds 0 and 1 differ in n_fold; run one of them anew",
        ),
        (changed(1, errors={"s1": {}}), "differ in the sets"),
        (changed(1, n_together=1), "differ in sets to a network"),
    ],
)
def test_what_does_not_belong_together_is_refused(other, match):
    with pytest.raises(DataError, match=match):
        merge_documents([document(0, 0.0), other])
