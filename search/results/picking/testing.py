"""The test split: used once for a network, on its exported file, after it was picked."""

from __future__ import annotations

import contextlib
from pathlib import Path

from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from search.store.vocabulary import EvaluatedSplit
from search.study_file import settings_from
from space.errors import DataNotFound
from workers.file_names import runtime_of
from workers.images import batches
from workers.images.cache import open_prepared, prepare
from workers.images.data_info import DataInfo
from workers.judging.file_predictions import split_predictions
from workers.metrics import Predictions
from workers.settings import DataSettings


def tested(store: StudyStore, study: StudyRow, row: TrialRow, model: Path, cache: Path) -> TrialRow:
    """Return the trial with its test accuracy; the test split is used once for each network."""
    if row.test_top1 is None:
        predictions = test_predictions(study, model, cache)

        def record() -> None:
            store.add_predictions(row.number, EvaluatedSplit.TEST, predictions.to_bytes())
            store.set_test_top1(row.number, float(predictions.right.mean()))

        store.transact(record)
    return store.trial(row.number)


def test_predictions(study: StudyRow, model: Path, cache: Path) -> Predictions:
    """Run an exported file over the test split; return what it said of each image."""
    settings = settings_from(study.settings, "the stored settings")
    info = prepared_images(study, settings.data, cache)
    images = batches.load(settings.data, cache)
    if not len(images.test().labels):  # of a study that an earlier version began
        raise DataNotFound(
            f"the test split of study {study.name!r} has no image, so no network can be tested and picked; export a "
            "trial instead, or launch another study with more images."
        )
    return split_predictions(runtime_of(model), model, images.test(), info)


def prepared_images(study: StudyRow, data: DataSettings, cache: Path) -> DataInfo:
    """Return the description of a study's images, which are decoded into the cache then.

    Raises:
        DataNotFound: they are gone, or aren't those that the study began with.
    """
    known = (study.data_info or {}).get("fingerprint")
    info = _images_of(data, cache, known)
    if info.fingerprint != (known or info.fingerprint):
        raise DataNotFound(
            f"the images of {info.dataset} have changed since study {study.name!r} began, so its splits are "
            "others; put the images back."
        )
    return info


def _images_of(data: DataSettings, cache: Path, fingerprint: str | None) -> DataInfo:
    """Return the description of a study's images; those that were decoded serve where their source is gone."""
    try:
        return prepare(data, cache)
    except DataNotFound as gone:
        with contextlib.suppress(DataNotFound):
            info, _ = open_prepared(data, cache)
            if info.fingerprint == fingerprint:
                return info
        raise DataNotFound(f"{gone}; if the images were moved, resume the study once from where they are now") from None
