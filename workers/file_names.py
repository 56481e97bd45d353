"""Names of a trial's files, of model files by runtime, and of a network's input and output.

They stand alone, so that whoever only reads results loads neither torch nor ONNX.
"""

from __future__ import annotations

from pathlib import Path

from space.errors import InvalidSettings

NETWORK_FILE, ONNX_FILE, LOG_FILE, SETTINGS_FILE = "network.safetensors", "model.onnx", "log.txt", "trial.json"
CHECKPOINTS = "checkpoints"  # folder
INPUT, OUTPUT = "images", "logits"  # of every exported network
SUFFIXES = {  # by runtime
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


def runtime_of(path: Path) -> str:
    """Return the runtime that a model file is for, by its name.

    Raises:
        InvalidSettings: it ends in none of `SUFFIXES`.
    """
    for runtime, suffix in SUFFIXES.items():
        if path.name.endswith(suffix):
            return runtime
    raise InvalidSettings(f"a model file must end in one of {', '.join(SUFFIXES.values())}, but {path.name} doesn't.")


def known_runtime(runtime: str) -> str:
    """Return the runtime; InvalidSettings when it is none of `SUFFIXES`."""
    if runtime not in SUFFIXES:
        raise InvalidSettings(f"a runtime must be one of {', '.join(SUFFIXES)}, but got {runtime!r}; use one of those.")
    return runtime
