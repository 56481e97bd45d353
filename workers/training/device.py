"""The device that a training runs on, and what it computes in there."""

from __future__ import annotations

import torch

from space.errors import InvalidSettings
from workers.training.tried import why_not


def pick_device(name: str) -> torch.device:
    """Return the torch device for auto, cpu, cuda[:n] or mps; auto prefers CUDA, then MPS, then the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)


def use_device(name: str) -> torch.device:
    """Pick the device and make it torch's current one: streams and graphs of CUDA belong to the current device."""
    device = pick_device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def check_device(name: str) -> None:
    """Check that a training can run on this device.

    Raises:
        InvalidSettings: torch sees no such device here.
    """
    device = pick_device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            seen = "no CUDA device" if count == 0 else f"CUDA devices up to cuda:{count - 1}"
            raise InvalidSettings(f"{_rule(name)} torch sees {seen}; {_advice(count)}")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise InvalidSettings(f"{_rule(name)} torch sees no MPS; {_advice(0)}")
    if device.type != "cpu" and (reason := why_not(str(device))) is not None:
        raise InvalidSettings(f"{_rule(name)} a tiny network fails: {reason}; {_advice(0)}")


def _rule(name: str) -> str:
    return f"engine.device must be a device of the machine that trains, but is {name!r}, and here"


def _advice(cuda_devices: int) -> str:
    return 'set "auto" or "cpu".' if cuda_devices == 0 else "name one of these."


def autocast_on(device: torch.device, mixed_precision: bool) -> tuple[bool, str]:
    """Return whether steps run under bfloat16 autocast on this device, and in words what they compute in."""
    if not mixed_precision:
        return False, "float32"
    if device.type != "cuda":
        return False, "float32 (mixed precision is for CUDA)"
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return False, "float32 (mixed precision was asked for, but this GPU has no bfloat16)"
    return True, "bfloat16 where that is safe (mixed precision)"
