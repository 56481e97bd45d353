"""A study's retention rules, carried out: which files of a trial stay once its end is recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from search.results.pareto import non_dominated
from search.settings import RetentionSettings
from search.store.rows import TrialRow
from workers.file_names import CHECKPOINTS, NETWORK_FILE, ONNX_FILE, trial_folder
from workers.files import disk_errors, remove_half_written

COPIED = f"{CHECKPOINTS}.copied"  # a folder of checkpoints that is not whole yet


class TrialFiles:
    """The files of a study's trials, of which the retention rules keep some."""

    def __init__(self, files: Path, retention: RetentionSettings) -> None:
        self.root, self._retention = files, retention
        self._kept: list[TrialRow] = []  # done trials whose networks are still there, with retention `front`

    def folder(self, number: int) -> Path:
        """Return a trial's folder."""
        return self.root / trial_folder(number)

    def clean(self, number: int, checkpoints: bool = True) -> None:
        """Remove the half-written files of killed workers, and `checkpoints` unless the rules keep them."""
        remove_half_written(self.folder(number))
        shutil.rmtree(self.folder(number) / COPIED, ignore_errors=True)
        folder = self.folder(number) / CHECKPOINTS
        if checkpoints and self._retention.checkpoints == "none" and folder.exists():
            from workers.training.checkpoint import remove_checkpoints  # loads torch, which a replay does without

            remove_checkpoints(folder)

    def has_checkpoint(self, number: int) -> bool:
        """Whether a training can go on from a checkpoint of this trial."""
        return any((self.folder(number) / CHECKPOINTS).glob("*.json"))

    def carry_over(self, number: int, to: int) -> None:
        """Copy the checkpoints of one trial to another that goes on from them, unless it has some already.

        They appear there all at once: a copy that is interrupted is made again.

        Raises:
            DiskFull, ReadOnlyFolder: they can't be written.
        """
        source, target = self.folder(number) / CHECKPOINTS, self.folder(to) / CHECKPOINTS
        if target.exists() or not source.exists():
            return
        partial = target.with_name(COPIED)
        with disk_errors(target):
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source, partial)
            partial.rename(target)

    def add_done(self, row: TrialRow) -> None:
        """Consider a done trial in later calls of `remove_dominated`, with retention `front`."""
        if self._retention.networks == "front":
            self._kept.append(row)

    def remove_dominated(self, to_remove: Callable[[int], None]) -> None:
        """Remove the networks that would no longer be picked under any budget; their figures and logs stay.

        `to_remove` is called with the number of each trial before its networks are removed, to record it: if this
        process is killed in between, files stay that nobody misses. The other way round a file would be missed.
        """
        if not self._kept:
            return
        pickable = non_dominated(np.array([_pick_objectives(row) for row in self._kept]))
        for row, stays in zip(self._kept, pickable, strict=True):
            if not stays:
                to_remove(row.number)
                for name in (NETWORK_FILE, ONNX_FILE):
                    (self.folder(row.number) / name).unlink(missing_ok=True)
        self._kept = [row for row, stays in zip(self._kept, pickable, strict=True) if stays]


def _pick_objectives(row: TrialRow) -> tuple[float, ...]:
    """Return the objectives that `search.results.ranking` limits or compares, all to be minimised.

    A trial that is dominated in them is never picked.
    """
    latencies = [value for record in row.latencies.values() for value in (record.interval_high_ms, record.median_ms)]
    return (-(row.score or 0.0), *latencies, float(row.macs), float(row.params))
