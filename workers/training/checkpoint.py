"""Checkpoints of a training: one safetensors file and one JSON beside it, written so that either both count or neither.

Notable choices:
- The JSON carries the tensor file's SHA-256 and is renamed into place last, so it is the commit. A checkpoint whose
  tensors are missing, damaged or another network's is skipped with a note, and the one before it is used.
- A checkpoint carries its attempt's name, and an attempt removes only what it or an earlier one has written. A worker
  that was frozen while its trial went on elsewhere can't harm what was written there meanwhile.
- Nothing random is saved: batches, augmentation and dropout are functions of (seed, step), so the step is enough.
- No pickle: safetensors holds tensors, JSON the rest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from workers.file_names import attempt_of
from workers.files import file_hash, write_atomically

KEPT = 2
# What an optimizer keeps of each parameter, by its name in a checkpoint and in torch.
_OPTIMIZER = {"momentum": "momentum_buffer", "first": "exp_avg", "second": "exp_avg_sq", "steps": "step"}
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
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    attempt: int = 0,
    average: Mapping[str, Tensor] = MappingProxyType({}),
) -> Path:
    """Write an attempt's checkpoint and remove all but it and the one before it; return the JSON's path.

    A checkpoint with a later step goes too: it is another trial's or damaged, or this training would have gone on from
    it. So does whatever a killed process left half-written. Files of a later attempt stay.

    Raises:
        DiskFull, ReadOnlyFolder: it could not be written; earlier checkpoints are untouched.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})  # nothing before the first step
        parts = {part: state.get(key) for part, key in _OPTIMIZER.items()}
        tensors |= {f"{part}.{name}": value for part, value in parts.items() if value is not None}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    content = safetensors.torch.save(_as_stored(tensors))
    stem = f"checkpoint-{progress.step:09d}" + (f".{attempt:05d}" if attempt else "")
    digest = write_atomically(folder / f"{stem}.safetensors", content)
    document = {"format": FORMAT, "sha256": digest, **asdict(progress)}
    committed = folder / f"{stem}.json"
    write_atomically(committed, json.dumps(document, indent=1).encode())
    mine = [path for path in folder.iterdir() if attempt_of(path.name) <= attempt]
    whole = sorted(path.stem for path in mine if path.suffix == ".json" and not path.name.startswith("."))
    kept = [name for name in whole if name <= stem][-KEPT:]
    for path in mine:
        if path.stem not in kept:
            path.unlink(missing_ok=True)  # another worker of this trial may have removed it just now
    return committed


class _Unusable(Exception):
    """A checkpoint can't be used; the text says why, to follow its name."""


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: str,
    note: Callable[[str], None] = lambda text: None,
    average: Mapping[str, Tensor] = MappingProxyType({}),
) -> Progress | None:
    """Restore the newest checkpoint that fits; return None when there is none.

    The tensors of `average` are filled in place.

    `note` is called with a line about each newer one that is passed over: damaged, of another training, or of a network
    with other tensors. None of these is removed here: they stay until this training has written its own.
    """
    for path in sorted(folder.glob("checkpoint-*.json"), reverse=True):
        try:
            progress = _read_progress(path, identity)
            tensors = _read_tensors(path.with_suffix(".safetensors"), model, average)
        except _Unusable as reason:
            note(f"{path.stem} is not used: {reason}")
            continue
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        for name, parameter in model.named_parameters():
            for part, key in _OPTIMIZER.items():
                if (value := tensors.get(f"{part}.{name}")) is not None:
                    # as the parameter lies in memory
                    laid_out = value if part == "steps" else torch.empty_like(parameter).copy_(value)
                    optimizer.state[parameter][key] = laid_out
        for name, value in average.items():
            value.copy_(tensors[f"average.{name}"])
        return progress
    return None


def _read_progress(path: Path, identity: str) -> Progress:
    """Return what a checkpoint's JSON holds; raise _Unusable unless it and its tensors are whole and of this training.

    The tensors' hash is compared last, because it reads the whole file.
    """
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            raise _Unusable(f"it is of format {document['format']}, and this version reads format {FORMAT}")
        if document["identity"] != identity:
            raise _Unusable("it is of a training with another config, other settings, images or seed")
        progress = Progress(**{name: document[name] for name in Progress.__dataclass_fields__})
        if file_hash(path.with_suffix(".safetensors")) != document["sha256"]:
            raise _Unusable("its tensors are damaged")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _Unusable(f"it is damaged or incomplete ({type(error).__name__})") from None
    return replace(progress, curve=tuple(progress.curve))


def _read_tensors(path: Path, model: nn.Module, average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors; raise _Unusable if they are not those of this network."""
    tensors = safetensors.torch.load_file(path)
    wanted = {f"model.{name}": tuple(value.shape) for name, value in model.state_dict().items()}
    wanted |= {f"average.{name}": tuple(value.shape) for name, value in average.items()}
    for part in _OPTIMIZER:
        shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
        wanted |= {f"{part}.{name}": () if part == "steps" else shape for name, shape in shapes.items()}
    stored = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(wanted.keys() | stored.keys()):
        if name in stored and name not in wanted:
            raise _Unusable(f"it holds {name}, which this network doesn't have")
        if name in stored and stored[name] != wanted[name]:
            raise _Unusable(f"its {name} is of shape {list(stored[name])}, this network's of {list(wanted[name])}")
        if name not in stored and name.startswith(
            ("model.", "average.")
        ):  # an optimizer has nothing before its first step
            raise _Unusable(f"it lacks {name}")
    return tensors


def remove_checkpoints(folder: Path) -> None:
    """Delete every checkpoint of a finished trial, with their folder."""
    shutil.rmtree(folder, ignore_errors=True)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a network's tensors as safetensors wants them: on the CPU, contiguous."""
    return _as_stored(model.state_dict())


def _as_stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
