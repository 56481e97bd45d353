"""Where a training runs, and what it computes in there."""

from __future__ import annotations

import pytest
import torch

from space.errors import InvalidSettings
from workers.training.device import autocast_on, check_device, pick_device

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def test_a_named_device_is_taken_at_its_word():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_there_is_always_a_device_unless_one_is_named(name: str):
    check_device(name)


@pytest.mark.parametrize(
    ("devices", "name", "refusal"),
    [
        (0, "cuda", 'torch sees no CUDA device; set "auto" or "cpu"'),
        (2, "cuda:2", "torch sees CUDA devices up to cuda:1; name one of these"),
        pytest.param(1, "cuda", "a tiny network fails: Found no NVIDIA driver", marks=NO_CUDA),  # it only claims one
    ],
)
def test_a_cuda_device_must_be_among_those_torch_sees(monkeypatch, devices: int, name: str, refusal: str):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    with pytest.raises(InvalidSettings, match=refusal):
        check_device(name)


@pytest.mark.parametrize(
    ("device", "asked", "has_bfloat16", "used", "words"),
    [
        ("cuda", True, True, True, "bfloat16"),
        ("cuda", True, False, False, "this GPU has no bfloat16"),
        ("cuda", False, True, False, "float32"),
        ("mps", True, True, False, "mixed precision is for CUDA"),
        ("cpu", True, True, False, "mixed precision is for CUDA"),
    ],
)
def test_mixed_precision_falls_back_to_float32_and_says_so(monkeypatch, device, asked, has_bfloat16, used, words):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    autocast, said = autocast_on(torch.device(device), asked)
    assert autocast is used
    assert words in said
    assert used or said.startswith("float32")
