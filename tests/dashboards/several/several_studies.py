"""A database of several studies, for the tests of their list and of their comparison."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from space.config import CondenseNetConfig
from tests.dashboards.studies import SETTINGS, Study

IMAGES = {
    "dataset": "Digits (8x8, scikit-learn)",
    "train_images": 1149,
    "validation_images": 288,
    "test_images": 360,
    "fingerprint": "3fa4c9d2e1b07788",
}
LARGER = CondenseNetConfig(stages=(3, 3), growth=(8, 16), input_shape=(1, 8, 8))
ODD = "odd, 100% <b>"  # a name with all that an address has to write in another way


def made(
    folder: Path, name: str, networks: Mapping[float, float], images: Any = None, more: Any = None, **changed: Any
) -> Study:
    """A study of networks, top-1 by latency in ms; `changed` replaces fields of their measurements."""
    settings = {**SETTINGS, **(more or {})}
    study = Study(folder, name, {**settings, "study": {**settings["study"], "name": name}})
    study.store.set_data_info({**IMAGES, **(images or {})})
    for latency_ms, top1 in networks.items():
        study.done(latency_ms, top1, SMALL_OR_LARGER[latency_ms > 0.2], **changed)
    return study


SMALL_OR_LARGER = (CondenseNetConfig(stages=(2, 2), growth=(8, 16), input_shape=(1, 8, 8)), LARGER)


def several(folder: Path) -> Study:
    """Studies `first`, `second`, an `ODD` one, one of another device, of other images and of another split."""
    (folder / "study.db").write_bytes(_database())
    return Study.existing(folder, "first")


@functools.cache
def _database() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        studies = [
            made(folder, "first", {0.1: 0.9, 0.15: 0.93, 0.35: 0.97}),
            made(folder, "second", {0.12: 0.92, 0.18: 0.95, 0.3: 0.96}, more={"budget": {"max_latency_ms": 0.25}}),
            made(folder, ODD, {0.11: 0.8}),
            made(folder, "elsewhere", {9.0: 0.98}, kind="estimated", device="pi5:a76"),
            made(folder, "others", {0.1: 0.99}, {"dataset": IMAGES["dataset"], "fingerprint": "77ab00aa11bb22cc"}),
            made(folder, "other split", {0.1: 0.99}, more={"data": {"dataset": "digits", "split_seed": 1}}),
        ]
        for study in studies:
            study.engine.dispose()
        return (folder / "study.db").read_bytes()
