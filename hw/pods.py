"""Published training runs of whole models on many chips, and what the model predicts for them.

A run is split as its published configuration says: replicas of a pipeline of chips, micro-batches,
recomputation of the forward pass. Only the slowest stage of a pipeline is traced. Nothing is fitted
to these runs: times come from the machine files as everything else. Not charged: embeddings, the
loss, optimizer state outside the chip; evaluation as `OUTSIDE_S` says.

On a tile machine all tiles wait for the host and for other chips: input and exchange are not hidden
(there is one program, in bulk-synchronous steps). On the others both run beside the arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from hw.cost import cost_program
from hw.machine import Machine, TileMachine, load_machine
from hw.model_text import trace_model
from hw.scale import Layout, ScaledStep, StepWork, scale
from hw.testbed import NotPredictedError

_EXAMPLES = "graphcore/examples at 09b7c672"
_MLPERF = "mlcommons/training_results_v1.1 at ebe92f81, Graphcore/benchmarks"
#: Sequences that packing puts into one of 128, 384 or 512 tokens (graphcore/examples at 09b7c672,
#: nlp/bert/pytorch/configs_pretraining.yml; 2 for MLPerf, avg_seq_per_pack).
PACKED = {128: 1.17, 384: 1.7, 512: 2.0}
#: Bytes of a 224 x 224 image sent to the device as 8-bit values (`eight_bit_io`).
IMAGE_BYTE = 3 * 224 * 224
#: Molecules in a pack of 60 atoms: 14.1 atoms on average in PCQM4Mv2 (Hu et al. 2021).
GRAPH_PER_PACK = 60 / 14.1


@dataclass(frozen=True)
class Setup:
    """How a model is trained on many chips, as published.

    Attributes
    ----------
    stages : tuple of str
        Models in words (`hw.model_text`) of the pipeline stages that may be the slowest.
    n_stage : int
        Chips of one pipeline.
    micro : int
        Rows of one micro-batch.
    item_per_row : float
        Items counted in one row: sequences of a pack, molecules.
    batch : int
        Items of one step over all replicas where the table does not say.
    recompute : bool
        The backward pass runs the forward pass again.
    input_byte : float
        Bytes that the host sends for one row.
    temporary_fraction : float or None
        Share of tile memory for temporaries (`available_memory_proportion`), where it was set.
    source : str
    """

    stages: tuple[str, ...]
    n_stage: int
    micro: int
    batch: int
    source: str
    item_per_row: float = 1.0
    recompute: bool = True
    input_byte: float = 0.0
    temporary_fraction: float | None = None


def parse_chips(machine: str) -> tuple[str, int]:
    """Return machine name and number of chips from the way tables write a system.

    Raises
    ------
    NotPredictedError
        If the system is unknown.
    """
    text = machine.lower()
    pod = re.search(r"pod[-_ ]?(\d+)", text)
    if pod and int(pod.group(1)):
        return ("ipu_bow" if "bow" in text else "ipu_gc200"), int(pod.group(1))
    tpu = re.search(r"tpu[-_ ]?v3\D*(\d+)", text)
    if tpu and int(tpu.group(1)):
        return "tpu_v3", int(tpu.group(1))
    if "tpu" in text:
        raise NotPredictedError(f"no machine file for {machine!r}: of TPUs v3 is known, with chips")
    if "a100" in text:
        node = re.search(r"(\d+)[-_ ]?nodes?[-_ ]", text)
        return "a100", 8 * (int(node.group(1)) if node else 1)
    raise NotPredictedError(f"no number of chips in the machine {machine!r}")


def setup_of(op: str, machine: Machine, n_chip: int) -> Setup:
    """Return how a model named as in ``"train:BERT-Large SL128 packed"`` was trained.

    Raises
    ------
    NotPredictedError
        If no configuration of that model is known.
    """
    name = op.removeprefix("train:").lower()
    if name.startswith("bert"):
        return _bert(name, machine, n_chip)
    if name.startswith("resnet"):
        if not isinstance(machine, TileMachine):
            batch = 408 * n_chip
            return Setup(("resnet batch=408",), 1, 408, batch, "global batch 3264", recompute=False)
        return Setup(
            *(("resnet batch=20",), 1, 20, 120 * n_chip),
            f"{_EXAMPLES}, vision/cnns/tensorflow1/training/configs.yml",
            input_byte=IMAGE_BYTE,
            temporary_fraction=0.15,
        )
    if name.startswith("resnext101") and isinstance(machine, TileMachine):
        # two stages of nearly equal work: half of the network each
        return Setup(
            *(("resnet depth=101 group=32 batch=6",), 2, 6, 48 * n_chip),
            f"{_EXAMPLES}, vision/cnns/tensorflow1/training/configs.yml",
            input_byte=IMAGE_BYTE,
        )
    if name.startswith("efficientnet") and isinstance(machine, TileMachine):
        return efficientnet(16 if "group" in name or "g16" in name else 1, n_chip)
    if name.startswith("conformer") and isinstance(machine, TileMachine):
        # layers 0 to 2 behind the front end, 3 to 6, 7 to 11, the decoder
        return Setup(
            ("conformer depth=3 front=1", "conformer depth=5 front=2 length=304"),
            *(4, 4, 16128),
            f"{_EXAMPLES}, speech/conformer/pytorch/configs/train.yaml",
            input_byte=1220 * 80 * 2,
            temporary_fraction=0.3,
        )
    if name.startswith("gps++") and isinstance(machine, TileMachine):
        return Setup(
            *(("gps depth=4 batch=8",), 4, 8, 900),
            "graphcore/ogb-lsc-pcqm4mv2 at 500a6aaa, configs/GPS_PCQ_16gps_44M.yaml",
            item_per_row=GRAPH_PER_PACK,
            input_byte=60 * 60 * 2 * 4 + 60 * 100 + 120 * 20,
            temporary_fraction=0.2,
        )
    raise NotPredictedError(_REASON.get(name.split()[0], f"no published configuration of {op!r}"))


_REASON = {
    "mini": "its slowest stage, an image encoder, is not described in the published configuration",
    "graphsage": "the row names a data set of another task; the sizes of graph and batch are open",
}


def efficientnet(group: int, n_chip: int) -> Setup:
    """Return the published run of EfficientNet-B4 with depthwise or grouped convolutions."""
    source = f"{_EXAMPLES}, vision/cnns/tensorflow1/training/configs.yml"
    if group == 1:
        stage, n_stage, fraction, n_accumulated = "efficientnet batch=3", 4, 0.15, 64
    else:
        stage, n_stage, fraction, n_accumulated = (
            *("efficientnet batch=3 group=16 expand=4", 2),
            *(0.4, 256),
        )
    batch = n_accumulated * 3 * (16 // n_stage)
    return Setup(
        *((stage,), n_stage, 3, batch, source),
        input_byte=3 * 380 * 380,
        temporary_fraction=fraction,
    )


def _bert(name: str, machine: Machine, n_chip: int) -> Setup:
    """Return the split of BERT-Base or -Large; plain ``bert`` is MLPerf's, on packs of 512."""
    is_base = "base" in name
    length_text = re.search(r"sl(\d+)", name)
    is_mlperf = length_text is None
    length = int(length_text.group(1)) if length_text else 512
    is_packed = is_mlperf or "packed" in name
    if length not in PACKED:
        raise NotPredictedError(f"no published configuration of BERT on {length} tokens")
    item_per_row = PACKED[length] if is_packed else 1.0
    size = "width=768 head=12" if is_base else "width=1024 head=16"
    if not isinstance(machine, TileMachine):
        # unpadded: as many rows as the tokens of the 56 sequences of a chip fill
        stage = f"bert {size} depth={12 if is_base else 24} length={length} batch=28"
        return Setup(
            *((stage,), 1, 28, 56 * n_chip, "global batch 448 on 8"),
            item_per_row=item_per_row,
            recompute=False,
        )
    if "squad" in name:
        depth, n_stage, micro, fraction = 4, 8, 4, 0.32
    elif is_base:
        depth, n_stage, micro, fraction = 4, 4, {128: 32}.get(length, 8), 0.28
    elif is_mlperf and n_chip >= 64:
        depth, n_stage, micro, fraction = 4, 8, 2, 0.25
    else:
        depth, n_stage, micro, fraction = 7, 4, 8 if length == 128 else 2, 0.25
    return Setup(
        *((f"bert {size} depth={depth} length={length} batch={micro}",), n_stage, micro),
        batch=3072 if is_mlperf else {128: 65536}.get(length, 16384),
        source=_MLPERF if is_mlperf else f"{_EXAMPLES}, nlp/bert",
        item_per_row=item_per_row,
        temporary_fraction=fraction,
    )


def train(
    setup: Setup, machine: Machine | str, n_chip: int, batch: float | None = None
) -> ScaledStep:
    """Return one training step of a published run on `n_chip` chips.

    Parameters
    ----------
    setup : Setup
    machine : Machine or str
    n_chip : int
        Chips in all, a multiple of those of one pipeline.
    batch : float, optional
        Items of one step over all replicas.

    Raises
    ------
    NotPredictedError
        If the chips do not make whole pipelines.
    """
    machine = load_machine(machine)
    if n_chip % setup.n_stage:
        raise NotPredictedError(f"{n_chip} chips do not make pipelines of {setup.n_stage} chips")
    n_data = n_chip // setup.n_stage
    rows = (batch or setup.batch) / setup.item_per_row / n_data
    n_micro = max(1, round(rows / setup.micro))
    work = _step_work(setup, _with_fraction(machine, setup.temporary_fraction), n_micro)
    is_tiled = isinstance(machine, TileMachine)
    return scale(work, machine, Layout(n_data, setup.n_stage, 1, n_micro), overlap=not is_tiled)


@lru_cache(maxsize=32)
def _with_fraction(machine: Machine, fraction: float | None) -> Machine:
    if fraction is None or not isinstance(machine, TileMachine):
        return machine
    return replace(machine, temporary_fraction=fraction)


def _step_work(setup: Setup, machine: Machine, n_micro: int) -> StepWork:
    """Return the work of one replica, all stages as slow as the slowest."""
    slowest: tuple[float, float, float, float, float] = (0.0,) * 5
    # a whole network that a pipeline shares is split evenly
    share = len(setup.stages) == 1 and setup.stages[0].split()[0] in ("resnet", "efficientnet")
    for stage in setup.stages:
        slowest = max(slowest, _stage_s(stage, machine, 1 / setup.n_stage if share else 1.0,
                                        setup.recompute))  # fmt: skip
    _, forward_s, backward_s, optimizer_s, byte = slowest
    input_s = 0.0
    if isinstance(machine, TileMachine):
        # the chips of a node share its way to the host, pipelines of more than a node have more
        per_chip = machine.host_byte_per_s / machine.node_chip
        input_s = setup.input_byte * setup.micro * n_micro / (per_chip * setup.n_stage)
    return StepWork(
        n_item=setup.micro * n_micro * setup.item_per_row,
        forward_s=forward_s * setup.n_stage * n_micro,
        backward_s=backward_s * setup.n_stage * n_micro,
        optimizer_s=optimizer_s * setup.n_stage,
        product_fraction=0.0,
        gradient_byte=byte * setup.n_stage,
        tensor_byte=0.0,
        op_s=(1.0,) * setup.n_stage,
        cut_byte=(0.0,) * setup.n_stage,
        input_s=input_s,
    )


@lru_cache(maxsize=64)
def _stage_s(
    text: str, machine: Machine, share: float, recompute: bool
) -> tuple[float, float, float, float, float]:
    """Return total, forward, backward and optimizer time of one micro-batch, and weight bytes."""
    program, _ = trace_model(text)
    # the vendor's compiler plans products one by one
    report = cost_program(program, machine, phase="train_step", whole=False)
    by_phase: Mapping[str, float] = {
        phase: share * sum(op.time_s for op in report.ops if op.phase == phase)
        for phase in ("forward", "backward", "optimizer")
    }
    forward_s = by_phase["forward"] * (2 if recompute else 1)
    byte = share * sum(s.byte for s in program.storages.values() if s.role == "parameter")
    backward_s, optimizer_s = by_phase["backward"], by_phase["optimizer"]
    return forward_s + backward_s, forward_s, backward_s, optimizer_s, byte


#: Items until the target, from MLPerf logs (training_results_v1.0 at 50619b5d, v1.1 at ebe92f81;
#: epochs of 1,281,167 images): convergence is measured, not modelled. By model and global batch.
ITEMS_TO_TARGET = {
    **{("resnet", 1920): 44 * 1281167, ("resnet", 2560): 45 * 1281167},
    **{("resnet", 3200): 38 * 1281167, ("resnet", 3840): 38 * 1281167},
    **{("resnet", 5120): 41 * 1281167, ("resnet", 3264): 35 * 1281167},
    **{("resnet", 10240): 45 * 1281167},
    **{("bert", 3072): 2.5e6, ("bert", 448): 2.77e6},
}
#: Global batch of a submission by model and chips, where a row does not say (the same logs).
_BATCH = {
    **{("resnet", 8): 3264, ("resnet", 16): 3200, ("resnet", 64): 3840},
    **{("resnet", 128): 5120, ("resnet", 256): 10240},
}
#: Seconds of a vendor's run outside its training epochs, by round and model: a checkpoint every
#: fourth epoch, and at the end the evaluation of all of them. Read off the log of 16 chips
#: (result_0 of ipu-pod16-TF1/resnet: the trimmed mean less epochs x the length of an undisturbed
#: one, 44 x 46.3 s in v1.0 and 38 x 43.2 s in v1.1) and taken for every number of chips; the logs
#: of 64, 128 and 256 chips say 202 s, and 59, 56 and 61 s. Of other vendors nothing was read.
OUTSIDE_S = {("1.0", "resnet"): 190.0, ("1.1", "resnet"): 58.0}


def predict_training(cells: Mapping[str, str]) -> tuple[float, str]:
    """Return the prediction for a row of whole-model training in the row's unit, and its group.

    Raises
    ------
    NotPredictedError
        Says what is missing.
    """
    name = cells["op"].removeprefix("train:").lower()
    metric = cells["metric"]
    if metric == "throughput_gain_group_conv":
        by_group = [train(efficientnet(g, 16), "ipu_gc200", 16).item_per_s for g in (16, 1)]
        return by_group[0] / by_group[1], "training, gain of grouped convolution"
    machine_name, n_chip = parse_chips(cells["machine"])
    machine = load_machine(machine_name)
    batch = batch_of(cells)
    setup = setup_of(cells["op"], machine, n_chip)
    step = train(setup, machine, n_chip, batch)
    model = name.split()[0].split("-")[0]
    if metric == "throughput":
        return step.item_per_s, f"training throughput, {model}"
    group = "throughput" if metric == "avg_items_per_s_incl_eval" else "time"
    if group == "time" and not metric.startswith("time_to_train"):
        raise NotPredictedError(f"no prediction for training of metric {metric!r}")
    outside_s = outside_of(cells) if isinstance(machine, TileMachine) else 0.0
    if group == "throughput" and not outside_s:
        return step.item_per_s, f"training throughput, {model}"
    items = items_of(cells)
    seconds = items / step.item_per_s + outside_s
    if group == "throughput":
        return items / seconds, f"training throughput, {model}"
    return seconds / 60, f"training time, {model}"


def batch_of(cells: Mapping[str, str]) -> float | None:
    """Return the items of one step over all replicas, as the row or its submission says."""
    name = cells["op"].removeprefix("train:").lower()
    _, n_chip = parse_chips(cells["machine"])
    note = re.search(r"global batch (\d+)", cells.get("note", ""))
    if note is None:
        return _BATCH.get((name.split()[0].split("-")[0], n_chip))
    packed = re.search(r"sl(\d+) packed", name)
    # the vendor's tables count packs
    return float(note.group(1)) * (PACKED.get(int(packed.group(1)), 1.0) if packed else 1.0)


def round_of(cells: Mapping[str, str]) -> str:
    """Return the MLPerf round that a row names, such as ``"1.1"``, or nothing."""
    found = re.search(r"(?:_v|MLPerf v)(\d\.\d)", f"{cells.get('source')} {cells.get('note')}")
    return found.group(1) if found else ""


def outside_of(cells: Mapping[str, str]) -> float:
    """Return the seconds of a run outside its training epochs, where they are known."""
    name = cells["op"].removeprefix("train:").lower()
    return OUTSIDE_S.get((round_of(cells), name.split()[0]), 0.0)


def items_of(cells: Mapping[str, str]) -> float:
    """Return the items that a submission trained on until the target.

    Raises
    ------
    NotPredictedError
        If they are not published for its batch.
    """
    name = cells["op"].removeprefix("train:").lower()
    if "open" in f"{cells['machine']} {name}".lower():
        raise NotPredictedError("an open submission: its samples to the target are not in the log")
    model, batch = name.split()[0].split("-")[0], batch_of(cells)
    items = ITEMS_TO_TARGET.get((model, int(batch or 0)))
    if items is None:
        raise NotPredictedError(
            f"no samples to the target are published for {model} at a batch of {batch or 'unknown'}"
        )
    return items
