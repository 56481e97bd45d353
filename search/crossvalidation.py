"""Cross-validation: a trained network's config trained anew on every fold of its study's images.

The search judges all networks on one fold, and the best of many is partly the luckiest there. So what tells how good
such a network is on other images are the folds that it wasn't chosen on; how far they differ tells how much a figure of
one split is worth. A fold's training leaves its result among the trial's files, and isn't done twice.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from search.settings import StudySettings
from search.store.rows import StudyRow, TrialRow
from search.study_folders import cache_folder, trial_folder
from space.errors import FrozenSettings, InvalidSettings, TrialNotReady
from workers.files import write_atomically
from workers.images.cache import prepare
from workers.settings import NO_START, TrainingSettings
from workers.training.job import TrialJob
from workers.training.reporting import CurveRow, ProgressReport
from workers.training.start import start_file, without_pin

FOLDS = "folds"  # folder among a trial's files
RESULT = "result.json"  # in a fold's folder


@dataclass(frozen=True)
class FoldScore:
    """What a config reached when one fold was its validation split, as fractions."""

    fold: int
    top1: float
    balanced_accuracy: float | None
    macro_f1: float | None
    images: int  # in the fold
    chosen_on: bool  # whether it is the fold that the search judged by


def cross_validate(
    study: StudyRow, row: TrialRow, settings: StudySettings, url: str, note: Callable[[str], None]
) -> Iterator[FoldScore]:
    """Yield the score of each fold, after training on the others; the search's own fold comes as it was recorded.

    Args:
        study: the trial's study.
        row: the trial.
        settings: the study's, as they are stored.
        url: of the database.
        note: called with a line before each training, and one if the network began as another.

    Raises:
        InvalidSettings: the study has no folds.
        TrialNotReady: the trial has no result.
        FrozenSettings: the images have changed since the study began.
    """
    data = settings.data
    if data.folds is None:
        raise InvalidSettings(
            f"study {study.name!r} has no folds; launch one with data.folds = 5, say, whose first fold is then the "
            "validation split of the search."
        )
    if row.top1 is None:
        raise TrialNotReady(f"trial {row.number} is {row.state} and has no result; cross-validate a done one.")
    if (start := str(row.training.get("start", NO_START))) != NO_START:
        note(
            f"the trainings begin as {without_pin(start)}: if that network learned from these images, it has seen "
            "those of the other folds, whose figures then look better than they are"
        )
    cache, files = cache_folder(settings, url), trial_folder(settings, url, row.number)
    for fold in range(data.folds):
        info = prepare(data.model_copy(update={"fold": fold}), cache)
        if (study.data_info or {}).get("fingerprint", info.fingerprint) != info.fingerprint:
            raise FrozenSettings(f"the images have changed since study {study.name!r} began; put them back.")
        if fold == data.fold:
            yield FoldScore(fold, row.top1, row.balanced_accuracy, row.macro_f1, info.validation_images, True)
            continue
        job = _job(settings, row, fold, files / FOLDS / str(fold), cache)
        result = _earlier(job) or _trained(job, info.fingerprint, note)
        yield FoldScore(
            fold, result["top1"], result["balanced_accuracy"], result["macro_f1"], info.validation_images, False
        )


def mean_and_deviation(scores: Sequence[FoldScore]) -> tuple[float, float]:
    """Return the mean top-1 of the folds that the network wasn't chosen on, and its standard deviation over them.

    The deviation of one fold is NaN.
    """
    others = [score.top1 for score in scores if not score.chosen_on]
    return statistics.fmean(others), statistics.stdev(others) if len(others) > 1 else math.nan


def _job(settings: StudySettings, row: TrialRow, fold: int, folder: Path, cache: Path) -> TrialJob:
    start = start_file(row.training)
    return TrialJob(
        study=settings.study.name,
        number=row.number,
        attempt=1,
        config=row.config,
        training=TrainingSettings.model_validate(row.training),
        data=settings.data.model_copy(update={"fold": fold}),
        seed=row.seed,
        folder=str(folder),
        cache=str(cache),
        device=settings.engine.device,
        kernel=settings.engine.kernel,
        recompute=settings.engine.recompute,
        checkpoint_every_s=settings.limits.checkpoint_every_s,
        start="" if start is None else str(folder.parents[2] / start),
    )


def _earlier(job: TrialJob) -> dict[str, float] | None:
    """Return the result that an earlier call left, if it is of the same training."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((Path(job.folder) / RESULT).read_text())
        if found["identity"] == job.identity:
            return {name: found[name] for name in ("top1", "balanced_accuracy", "macro_f1")}
    return None


def _trained(job: TrialJob, fingerprint: str, note: Callable[[str], None]) -> dict[str, float]:
    from workers.training.trial import run_trial

    note(f"training trial {job.number}'s network with fold {job.data.fold} as validation split …")
    result = asdict(run_trial(job, _Quiet()))
    kept = {name: result[name] for name in ("top1", "balanced_accuracy", "macro_f1")}
    text = json.dumps({"identity": job.identity, "fingerprint": fingerprint, **kept})
    write_atomically(Path(job.folder) / RESULT, text.encode())
    return kept


class _Quiet:
    """A reporter that tells no one: the trial's log has it all."""

    def earlier(self, rows: Sequence[CurveRow]) -> None:
        pass

    def curve(self, row: CurveRow) -> None:
        pass

    def under_way(self, report: ProgressReport) -> None:
        pass

    def check(self) -> None:
        pass
