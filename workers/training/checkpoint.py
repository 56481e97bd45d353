"""Checkpoints of a training: one safetensors file and one JSON beside it, written so that either both count or neither.

Notable choices:
- The JSON carries the tensor file's SHA-256 and is renamed into place last, so it is the commit. A checkpoint whose
  tensors are missing or damaged is skipped, and the one before it is used.
- Nothing random is saved: batches, augmentation and dropout are functions of (seed, step), so the step is enough.
- No pickle: safetensors holds tensors, JSON the rest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from workers.files import file_hash, write_atomically

FORMAT = 2  # raise it when the tensors or the facts of a checkpoint change: one of another format is not used


@dataclass(frozen=True)
class Progress:
    """How far a training has come, beside its tensors."""

    step: int  # optimizer steps done
    loss_sum: float  # of the current epoch so far
    loss_count: int
    seconds: float  # spent training, over all attempts
    identity: str  # hash of config, training settings, data and seed: a checkpoint of another trial is never used
    curve: tuple[dict[str, Any], ...] = ()  # the epochs before `step`: the controller may have died before it had them
    epoch_seconds: float = 0.0  # of `seconds`, spent in the steps of the current epoch


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, keep: int = 2
) -> Path:
    """Write a checkpoint and remove all but it and the `keep` - 1 before it; return the JSON's path.

    A checkpoint with a later step goes too: it is another trial's or damaged, or this training would have gone on from
    it. So does whatever a killed process left half-written.

    Raises:
        DiskFull, ReadOnlyFolder: it could not be written; earlier checkpoints are untouched.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    content = safetensors.torch.save(_as_stored(tensors))
    stem = folder / f"checkpoint-{progress.step:09d}"
    digest = write_atomically(stem.with_suffix(".safetensors"), content)
    document = {"format": FORMAT, "sha256": digest, **asdict(progress)}
    committed = stem.with_suffix(".json")
    write_atomically(committed, json.dumps(document, indent=1).encode())
    whole = sorted(path.stem for path in folder.glob("checkpoint-*.json") if path.stem <= committed.stem)
    for path in folder.iterdir():
        if path.stem not in whole[-keep:]:
            path.unlink()
    return committed


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> Progress | None:
    """Restore the newest intact checkpoint of this identity; return None when there is none."""
    for path in sorted(folder.glob("checkpoint-*.json"), reverse=True):
        document = _intact(path)
        if document is None or document["identity"] != identity:
            continue
        tensors = safetensors.torch.load_file(path.with_suffix(".safetensors"))
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        for name, parameter in model.named_parameters():
            if (momentum := tensors.get(f"momentum.{name}")) is not None:
                laid_out = torch.empty_like(parameter).copy_(momentum)  # as the parameter lies in memory
                optimizer.state[parameter]["momentum_buffer"] = laid_out
        values = {name: document[name] for name in Progress.__dataclass_fields__}
        return Progress(**values | {"curve": tuple(document["curve"])})
    return None


def _intact(path: Path) -> dict[str, Any] | None:
    """Return the JSON's content when it and its tensors are whole."""
    tensors = path.with_suffix(".safetensors")
    try:
        document = json.loads(path.read_text())
        whole = document["format"] == FORMAT and tensors.exists() and file_hash(tensors) == document["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return document if whole else None


def remove_checkpoints(folder: Path) -> None:
    """Delete every checkpoint of a finished trial, with their folder."""
    shutil.rmtree(folder, ignore_errors=True)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a network's tensors as safetensors wants them: on the CPU, contiguous."""
    return _as_stored(model.state_dict())


def _as_stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
