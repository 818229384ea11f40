import json

from apps.chemistry.affinity import AffinityConfig, affinity_document, affinity_markdown
from apps.chemistry.affinity.document import SCHEMA, WHOLE
from apps.lab.record import new_record


def record(seed, mse, folds):
    tests = {f"test-{i}": {"mse": v} for i, v in enumerate(folds)}
    return new_record(
        application="chemistry",
        command="chemistry benchmark",
        config=AffinityConfig(split="cold-drug"),
        seed=seed,
        device="cpu",
        data={
            "name": "davis, cold-drug", "source": "file", "sha256": "0" * 64, "unit": "pKd",
            "n_train": 24000, "n_valid": 0, "n_test": 6000,
        },
        accuracy={"test": {"mse": mse, "ci": 0.8, "weight_ridge": 0.25, "weight_trees": 0.75}}
        | tests,
        members={"ridge": {"test": {"mse": 0.5, "ci": 0.7}}},
        baselines={"train_mean": {"test": {"mse": 0.9}}},
    )  # fmt: skip


def test_means_over_seeds_and_each_test():
    document = affinity_document([record(0, 0.4, [0.3, 0.5]), record(1, 0.6, [0.6, 0.6])])
    assert document["schema"] == SCHEMA
    assert document["models"][WHOLE] == {"mse": 0.5, "ci": 0.8}
    assert document["models"]["train_mean"] == {"mse": 0.9}
    assert document["tests"] == [[0.3, 0.5], [0.6, 0.6]]
    assert document["weights"] == {"ridge": 0.25, "trees": 0.75}
    assert json.loads(json.dumps(document)) == document
    lines = affinity_markdown(document).splitlines()
    assert lines[0].startswith("24,000 train and 6,000 test pairs, seeds 0, 1. Whole answer: ridge")
    assert lines[2:4] == ["| pKd | mse | ci |", "|---|---:|---:|"]
    assert lines[4] == "| whole answer | 0.500 | 0.800 |"
    assert lines[6] == "| train_mean | 0.900 | - |"
