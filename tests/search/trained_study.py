"""A study with one finished network and its files, in a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch

from search.store.rows import NewTrial
from search.store.store import StudyStore
from search.study import open_study
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.deployed import DeployedCondenseNet
from tests.search.tiny_studies import INSIDE, CountingProbe, sqlite_url, tiny_settings
from workers.export.onnx import save_onnx
from workers.file_names import NETWORK_FILE, ONNX_FILE, trial_folder
from workers.files import write_atomically
from workers.latency import Measurement
from workers.training.checkpoint import model_tensors


def files_of_trial(folder: Path, name: str = "tiny") -> Path:
    """Return the folder of the one trial of `trained_study`."""
    return folder / "study-files" / name / trial_folder(0)


def trained_study(
    folder: Path, probe: CountingProbe, config: CondenseNetConfig = INSIDE, name: str = "tiny", **changes: Any
) -> StudyStore:
    """A study on digits with one network, trained by nobody, and its files."""
    files = folder / "study-files"
    store = open_study(
        tiny_settings(study__files=str(files), study__name=name, **changes), sqlite_url(folder), False
    ).store
    store.add_trial(NewTrial(0, "sampled", config, {}, 0, "0", cost_of(config)))
    network, trial = DeployedCondenseNet.random(config), files_of_trial(folder, name)
    trial.mkdir(parents=True)
    model, weights = trial / ONNX_FILE, trial / NETWORK_FILE
    hashes = save_onnx(network, model), write_atomically(weights, safetensors.torch.save(model_tensors(network)))
    paths = (f"{trial.name}/{path.name}" for path in (model, weights))
    store.add_artifacts(0, dict(zip((ONNX_FILE, NETWORK_FILE), zip(paths, hashes, strict=True), strict=True)))
    (price,) = probe.measure([model])
    assert isinstance(price, Measurement)
    store.add_latency(0, price)
    store.finish(0, "done", top1=0.5, val_loss=1.0)
    return store
