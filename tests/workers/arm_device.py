"""The ARM device in software for tests: built once per machine, where the application keeps it."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
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


@functools.cache
def arm_pillow(arm: VirtualArm) -> Path:
    """Return a folder with Pillow for the device; a test is skipped where it can't be fetched."""
    version = importlib.metadata.version("pillow")
    folder = arm.folder.with_name(f"{arm.folder.name}-pillow-{version}")
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", ".".join(arm.facts["python"].split(".")[:2])]
        for minor in range(36, 16, -1):
            command += ["--platform", f"manylinux_2_{minor}_aarch64"]
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            site = Path(scratch, "site")
            done = subprocess.run([*command, "--target", str(site), f"pillow=={version}"], capture_output=True)
            if done.returncode != 0:
                pytest.skip(f"pip can't fetch Pillow {version} for aarch64")
            with contextlib.suppress(OSError):  # another process was faster
                site.rename(folder)
    return folder


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
