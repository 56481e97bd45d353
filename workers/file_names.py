"""Names of a trial's files, of model files by runtime, and of a network's input and output.

They are a module of their own, so that whatever only reads results loads neither torch nor ONNX.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, cast, get_args

from space.errors import InvalidSettings

NETWORK_FILE, ONNX_FILE, LOG_FILE, SETTINGS_FILE = "network.safetensors", "model.onnx", "log.txt", "trial.json"
CHECKPOINTS = "checkpoints"  # folder
TENSORBOARD = "tensorboard"  # folder among a study's files
SPLITS_FILE = "splits.csv"  # among a study's files and in bundles: which image is in which split
MODEL = "model"  # what the model files in a bundle are called, before their suffixes
INPUT, OUTPUT = "images", "logits"  # of every exported network
Precision = Literal["fp32", "fp16", "int8"]
Runtime = Literal["onnxruntime", "ncnn", "litert", "native"]
SUFFIXES: dict[Runtime, str] = {
    "onnxruntime": ".onnx",
    "ncnn": ".ncnn.zip",
    "litert": ".tflite",
    "native": ".native.zip",
}


def trial_folder(number: int) -> str:
    """Return the name of a trial's folder among its study's files, such as trial-00012."""
    return f"trial-{number:05d}"


def file_for(runtime: str, stem: str) -> str:
    """Return the name of a runtime's model file, such as model.onnx."""
    return stem + SUFFIXES[known_runtime(runtime)]


def stem_for(precision: Precision, stem: str = MODEL) -> str:
    """Return what a model file in a precision is called before its suffix, such as model.int8."""
    return stem if precision == "fp32" else f"{stem}.{precision}"


def precision_of(path: Path) -> Precision:
    """Return the precision of a model file, which its name says; fp32 where it says none."""
    return next((one for one in get_args(Precision) if f".{one}." in path.name), "fp32")


def runtime_of(path: Path) -> Runtime:
    """Return the runtime that a model file is for, by its name.

    Raises:
        InvalidSettings: it ends in none of `SUFFIXES`.
    """
    for runtime, suffix in SUFFIXES.items():
        if path.name.endswith(suffix):
            return runtime
    raise InvalidSettings(f"a model file must end in one of {', '.join(SUFFIXES.values())}, but {path.name} doesn't.")


def known_runtime(runtime: str) -> Runtime:
    """Return the runtime of this name.

    Raises:
        InvalidSettings: it is none of `Runtime`.
    """
    if runtime not in get_args(Runtime):
        raise InvalidSettings(f"a runtime must be one of {', '.join(SUFFIXES)}, but got {runtime!r}; use one of those.")
    return cast(Runtime, runtime)


def attempt_of(checkpoint: str) -> int:
    """Return the attempt in the name of a checkpoint's file, whole or not; 0 for a name that doesn't say."""
    found = re.match(r"\.?checkpoint-\d+\.(\d{5})\.", checkpoint)
    return int(found[1]) if found else 0
