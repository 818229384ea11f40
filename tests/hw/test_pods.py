"""Published training runs: systems as tables write them, splits, what a run is made of."""

import pytest

from hw.machine import load_machine
from hw.pods import (
    ITEMS_TO_TARGET,
    OUTSIDE_S,
    PACKED,
    Setup,
    batch_of,
    efficientnet,
    parse_chips,
    predict_training,
    setup_of,
    train,
)
from hw.testbed import NotPredictedError


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Bow Pod16", ("ipu_bow", 16)),
        ("ipu-pod64-POPART-closed (Mk2 GC200)", ("ipu_gc200", 64)),
        ("Mk2 (M2000) POD4", ("ipu_gc200", 4)),
        ("DGX A100", ("a100", 8)),
        ("2_nodes_16_A100_PyTorch", ("a100", 16)),
        ("TPU v3 pod, 256 chips", ("tpu_v3", 256)),
    ],
)
def test_systems_as_tables_write_them(cell, expected):
    assert parse_chips(cell) == expected


@pytest.mark.parametrize("cell", ["tpu-v4-128-TF", "a room of abaci", "pod0"])
def test_unknown_systems_say_so(cell):
    with pytest.raises(NotPredictedError, match=r"no machine file|no number of chips"):
        parse_chips(cell)


def test_models_without_a_configuration_say_so():
    bow = load_machine("ipu_bow")
    with pytest.raises(NotPredictedError, match="no published configuration of 'train:Oracle'"):
        setup_of("train:Oracle", bow, 16)
    with pytest.raises(NotPredictedError, match="image encoder"):
        setup_of("train:Mini DALL-E", bow, 16)
    with pytest.raises(NotPredictedError, match="BERT on 999 tokens"):
        setup_of("train:BERT-Large SL999", bow, 16)
    with pytest.raises(NotPredictedError, match="6 chips do not make pipelines of 4"):
        train(setup_of("train:BERT-Large SL128", bow, 16), bow, 6)


def test_packing_counts_more_sequences_in_the_same_time():
    bow = load_machine("ipu_bow")
    plain, packed = (
        train(setup_of(f"train:BERT-Large SL128{words}", bow, 16), bow, 16, batch)
        for words, batch in (("", 65536), (" packed", 65536 * PACKED[128]))
    )
    assert packed.time_s == plain.time_s
    assert packed.item_per_s == pytest.approx(PACKED[128] * plain.item_per_s)


SMALL = Setup(("bert depth=1 width=64 head=2 length=16 batch=2",), 2, 2, 32, "made up")


def test_a_pipeline_of_two_takes_a_micro_batch_more_than_it_has():
    step = train(SMALL, "ipu_bow", 2, 32)
    assert step.layout.n_micro == 16
    assert step.parts_s["bubble"] == pytest.approx(step.parts_s["compute"] / 16)
    assert step.parts_s["gradient"] == 0
    assert step.item_per_s == pytest.approx(32 / step.time_s)


def test_recomputation_adds_a_forward_pass_and_input_stops_all_tiles():
    from dataclasses import replace

    again = train(SMALL, "ipu_bow", 2, 32).parts_s["compute"]
    once = train(replace(SMALL, recompute=False), "ipu_bow", 2, 32).parts_s["compute"]
    assert 1.2 < again / once < 1.6  # forward is a third of the arithmetic
    bow = load_machine("ipu_bow")
    fed = train(replace(SMALL, input_byte=1000.0), bow, 2, 32)
    # four chips of a node share its way to the host, two of them make the pipeline
    assert fed.parts_s["input"] == pytest.approx(32 * 1000 / (bow.host_byte_per_s / 4 * 2))
    assert train(replace(SMALL, input_byte=1000.0), "a100", 2, 32).parts_s["input"] == 0


def test_a_submission_takes_longer_than_its_epochs():
    row = {"op": "train:resnet", "machine": "ipu-pod64-TF1", "note": ""}
    old, new = (
        predict_training({**row, "metric": "time_to_train", "source": f"training_results_v{v}"})[0]
        for v in ("1.0", "1.1")
    )
    rate, _ = predict_training({**row, "metric": "throughput"})
    epochs = ITEMS_TO_TARGET["resnet", 3840] / rate / 60
    assert new == pytest.approx(epochs + OUTSIDE_S["1.1", "resnet"] / 60)
    assert old == pytest.approx(epochs + OUTSIDE_S["1.0", "resnet"] / 60)
    mean, _ = predict_training(
        {**row, "metric": "avg_items_per_s_incl_eval", "source": "training_results_v1.1"}
    )
    assert mean == pytest.approx(ITEMS_TO_TARGET["resnet", 3840] / new / 60)


def test_a_vendors_batch_of_packs_counts_their_sequences():
    row = {"op": "train:BERT-Large SL512 packed", "machine": "Bow Pod16"}
    assert batch_of({**row, "note": "global batch 8192"}) == 2 * 8192
    assert batch_of({**row, "op": "train:BERT-Large SL512", "note": "global batch 8192"}) == 8192
    assert batch_of({"op": "train:resnet", "machine": "IPU-POD256", "note": ""}) == 10240


def test_time_to_train_is_measured_items_over_predicted_rate():
    row = {"op": "train:resnet", "machine": "DGX A100", "note": ""}
    rate, _ = predict_training({**row, "metric": "throughput"})
    minutes, _ = predict_training({**row, "metric": "time_to_train"})
    assert minutes == pytest.approx(35 * 1281167 / rate / 60)
    with pytest.raises(NotPredictedError, match="no samples to the target are published"):
        predict_training({**row, "metric": "time_to_train", "note": "global batch 7"})
    with pytest.raises(NotPredictedError, match="an open submission"):
        predict_training({**row, "machine": "ipu-pod16-open", "metric": "time_to_train"})


def test_efficientnet_runs_are_the_published_two():
    assert efficientnet(1, 16).n_stage == 4
    assert efficientnet(16, 16).batch == 256 * 3 * 8
