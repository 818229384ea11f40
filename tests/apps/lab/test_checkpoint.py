"""Checkpoints come back bit for bit, or say what happened to them."""

import math

import pytest
import torch

from apps.lab.checkpoint import load_checkpoint, made_from, save_checkpoint
from core.errors import DataError, FormatError

TENSORS = {
    "weight": torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
    "view": torch.arange(12).reshape(3, 4).T,
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 4),
    "bf16": torch.tensor([1.0, -0.0, math.inf]).bfloat16(),
    "codes": torch.tensor([-128, 127], dtype=torch.int8),
    "fp8": torch.tensor([0.5, 448.0]).to(torch.float8_e4m3fn),
}
META = {"rate": 0.1 + 0.2, "history": [{"loss": 1e-300}], "text": "é"}


@pytest.fixture
def file(tmp_path):
    return save_checkpoint(tmp_path / "a.safetensors", TENSORS, META)


def test_it_comes_back_bit_for_bit(file):
    tensors, meta = load_checkpoint(file)
    assert meta == META
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert torch.equal(
            tensors[name].reshape(-1).view(torch.uint8),
            tensor.contiguous().reshape(-1).view(torch.uint8),
        )


def test_the_same_content_is_the_same_file(file, tmp_path):
    again = save_checkpoint(tmp_path / "b.safetensors", dict(reversed(TENSORS.items())), META)
    assert load_checkpoint(again)[1] == META
    assert again.stat().st_size == file.stat().st_size


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_a_file_cut_short_is_refused(file, keep):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=r"a\.safetensors is cut short or damaged.*delete it"):
        load_checkpoint(file)


def test_one_flipped_bit_in_a_tensor_or_a_value_is_seen(file):
    data = bytearray(file.read_bytes())
    for at in (len(data) - 3, data.index(b"1e-300")):
        data[at] ^= 1
        file.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.safetensors has changed since it was written"):
            load_checkpoint(file)
        data[at] ^= 1
    file.write_bytes(data)
    load_checkpoint(file)


def test_another_schema_and_a_missing_file_are_named(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "b", metadata={"schema": "tessera.checkpoint/9"})
    with pytest.raises(DataError, match=r"schema 'tessera.checkpoint/9', this version reads"):
        load_checkpoint(tmp_path / "b")
    with pytest.raises(DataError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("problem", [KeyError("size"), RuntimeError("copying"), FormatError("fp1")])
def test_what_does_not_fit_names_the_file(problem):
    does_not_fit = pytest.raises(DataError, match=r"runs/a does not fit this version \(.*again")
    with does_not_fit, made_from("runs/a"):
        raise problem
    with pytest.raises(DataError, match=r"^runs/a is of T5$"), made_from("runs/a"):
        raise DataError("runs/a is of T5")
