"""The ARM device in software for tests: built once per machine, where the application keeps it."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from space import CondenseNetConfig, DeployedCondenseNet
from space.errors import EmulatorMissing
from workers.export.onnx import save_onnx
from workers.latency.emulated import arm_root
from workers.latency.emulated.virtual_arm import VirtualArm, build, default_folder


@functools.cache
def _built() -> VirtualArm | str:
    reason = ""
    for _ in range(2):
        try:
            return build(default_folder())
        except EmulatorMissing as error:  # no tools, or no network
            reason = str(error)
    return reason


def arm_device() -> VirtualArm:
    """Return the device; a test is skipped where it can't be built."""
    arm = _built()
    if isinstance(arm, str):  # why there is none
        pytest.skip(arm)
    return arm


def linked_copy(arm: VirtualArm, folder: Path, **stamp: Any) -> Path:
    """Copy a device without its bytes, with changes to its stamp."""
    shutil.copytree(arm.folder, folder, symlinks=True, copy_function=os.link)
    present = arm_root.read_stamp(folder)
    assert present is not None
    arm_root.write_stamp(folder, {**present, **stamp})
    return folder


def small_config(layers: int) -> CondenseNetConfig:
    """Return a CondenseNet of two stages of `layers` layers on 32x32 images."""
    return CondenseNetConfig(
        stages=(layers, layers), growth=(8, 8), groups=2, condense_factor=2, input_shape=(3, 32, 32)
    )


def write_condensenet(path: Path, layers: int) -> Path:
    """Write that network with random weights, the same bytes every time."""
    torch.manual_seed(0)
    save_onnx(DeployedCondenseNet.random(small_config(layers)), path)
    return path
