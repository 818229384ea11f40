"""Networks of the zoo have the parameters and multiply-adds of their papers."""

import pytest

from core.errors import ConfigError
from hw import cost_program
from hw.model_text import trace_model

#: Papers round to three digits, or leave out norms and biases.
ROUNDING = 0.02


@pytest.mark.parametrize(
    ("text", "million", "giga_mac"),
    [
        # torchvision's tables for ResNet-50 v1.5 and ResNeXt-101 32 x 4d
        ("resnet batch=1", 25.56, 4.09),
        ("resnet depth=101 group=32 batch=1", 44.18, 7.99),
        # Tan and Le 2019, table 2: 19 million, 4.2 billion, both rounded
        ("efficientnet batch=1", 19.34, 4.39),
        # 12 d^2 + 13 d in each layer; 12 d^2 tokens + 2 d tokens^2 multiply-adds
        ("bert depth=2 batch=1", 2 * (12 * 1024**2 + 13 * 1024) / 1e6,
         2 * (12 * 1024**2 * 128 + 2 * 1024 * 128**2) / 1e9),
        # GPS++: 44 million in 16 layers (Masters et al. 2023), encoders and heads apart
        ("gps depth=2 batch=1", 44 / 8, None),
    ],
)  # fmt: skip
def test_parameters_and_multiply_adds(text, million, giga_mac):
    program, n_item = trace_model(text)
    byte = sum(s.byte for s in program.storages.values() if s.role == "parameter")
    tolerance = 0.12 if giga_mac is None else ROUNDING
    assert byte / 2e6 == pytest.approx(million, rel=tolerance)
    if giga_mac is not None:
        report = cost_program(program, "a100")
        mac = sum(op.n_mac for op in report.ops if op.phase == "forward")
        assert mac / n_item / 1e9 == pytest.approx(giga_mac, rel=ROUNDING)


def test_conformer_layers_behind_a_front_end_see_a_quarter_of_the_frames():
    program, _ = trace_model("conformer depth=1 batch=1 length=80")
    joined, _ = trace_model("conformer depth=1 batch=1 length=19 front=2")
    outs = [max(o.out.shape for o in p.ops if o.name == "aten.bmm") for p in (program, joined)]
    assert outs[0] == outs[1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("resnet depth=34", "depth must be 50 or 101, got 34"),
        ("bert head=7", "width 1024 is not a multiple of head 7"),
        ("bert dtype=int8", "dtype 'int8' is not one of fp32, bf16, fp16"),
        ("alexnet", "model 'alexnet' is unknown"),
    ],
)
def test_words_that_are_wrong(text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        trace_model(text)
