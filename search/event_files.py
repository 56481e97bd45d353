"""Learning curves as TensorBoard's event files: one run folder a trial, written from what the database holds.

Notable choices:
- The controller writes them, after each epoch is recorded; workers know nothing of them. So a curve has each epoch
  once, however often its training was interrupted, on whichever machine.
- A run is written out of the database when this process first has news of its trial; from then on epochs are
  appended. What a killed process left is replaced, and a run that misses its end is completed at the next launch.
- The database is the truth and these files are a copy: when they can't be written, the search goes on without them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.store import reader
from search.store.rows import TrialRow
from search.store.store import StudyStore
from search.store.vocabulary import FINAL_STATES, TrialState
from space.errors import CondenseryError, InvalidSettings
from workers.file_names import trial_folder
from workers.latency.record import kind_words
from workers.metrics import METRICS, OBJECTIVES
from workers.training.reporting import ProgressReport
from workers.wording import counted

if TYPE_CHECKING:
    from search.loop.callbacks import LaunchCallback

WHOLE = "whole"  # an empty file in the folder of a run whose trial has ended: nothing is missing
Epoch = Mapping[str, Any]  # one row of a learning curve
SCALARS = {  # TensorBoard's tag: the column of the learning curve
    "loss/train": "train_loss",
    "loss/validation": "val_loss",
    **{f"{name}/validation": f"val_{name}" for name in OBJECTIVES},
    "training/learning_rate": "learning_rate",
    "training/condensing_stage": "condensing_stage",
    "training/images_per_s": "images_per_s",
}


def check_tensorboard() -> None:
    """Check that event files can be written.

    Raises:
        InvalidSettings: the package tensorboard isn't installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise InvalidSettings(
            "TensorBoard's event files need the package tensorboard; pip install 'condensery[tensorboard]', or set "
            "study.tensorboard = false."
        ) from None


class Run:
    """The event file of one trial, made from the epochs that are recorded."""

    def __init__(self, folder: Path, row: TrialRow, epochs: Iterable[Epoch]) -> None:
        """Write the epochs.

        Raises:
            OSError: the file can't be written.
        """
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        for file in (*folder.glob("events.out.tfevents.*"), folder / WHOLE):
            file.unlink(missing_ok=True)
        self._folder, self._started_at = folder, row.started_at or row.asked_at
        # TensorBoard forgets what it may have read of the file before, from this step on.
        self._writer: Any = SummaryWriter(str(folder), purge_step=0)
        self._newest = 0
        for epoch in epochs:
            self.add(epoch)

    def add(self, epoch: Epoch) -> None:
        """Write one epoch, unless it is written already: a resumed training repeats those since its checkpoint.

        Raises:
            OSError: it can't be written.
        """
        if epoch["epoch"] <= self._newest:
            return
        self._newest = epoch["epoch"]
        at = self._started_at + epoch["seconds"]
        for tag, column in SCALARS.items():
            if epoch.get(column) is not None:
                self._writer.add_scalar(tag, epoch[column], self._newest, at)
        self._writer.flush()

    def end(self, row: TrialRow) -> None:
        """Close the file; of a trial that is done, write its settings with its accuracy and costs first.

        Raises:
            OSError: it can't be written.
        """
        if row.state == TrialState.DONE:
            from torch.utils.tensorboard.summary import hparams

            outcome = outcome_of_run(row)
            for summary in hparams(settings_of_run(row), outcome):  # type: ignore[no-untyped-call]
                self._writer.file_writer.add_summary(summary)
            for tag, value in outcome.items():
                self._writer.add_scalar(tag, value, self._newest, row.finished_at)
        self.close()
        if row.state in FINAL_STATES:
            (self._folder / WHOLE).touch()

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: not all of it could be written.
        """
        self._writer.close()


def settings_of_run(row: TrialRow) -> dict[str, Any]:
    """Return a trial's architecture and training settings as plain numbers, words and flags."""
    values = {**{f"config.{name}": value for name, value in row.config.to_dict().items()}, **row.training}
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }


def outcome_of_run(row: TrialRow) -> dict[str, float]:
    """Return what a trial is judged by: the deployed network's accuracy and costs."""
    latencies = {
        f"final/latency_ms/{name}/{kind_words(latency).replace(', ', '-')}": latency.median_ms
        for name, latency in row.latencies.items()
    }
    costs = {"final/macs": float(row.macs), "final/params": float(row.params)}
    scores = {f"final/{name}": getattr(row, name) for name in METRICS}
    known = {name: value for name, value in scores.items() if value is not None}
    return {"final/top1": 0.0, **known, **costs, **latencies}


def write_runs(root: Path, rows: Iterable[TrialRow], curve_of: Callable[[TrialRow], Sequence[Epoch]]) -> int:
    """Write the runs of these trials below `root`, each from the start; return how many have an epoch.

    Of an earlier run only the event files are removed, in case `root` holds more.

    Raises:
        OSError: one can't be written.
    """
    written = 0
    for row in rows:
        epochs = curve_of(row)
        if epochs:
            Run(root / trial_folder(row.number), row, epochs).end(row)
            written += 1
    return written


class EventFiles:
    """A `search.loop.callbacks.LaunchCallback` that writes event files, and passes everything on to another callback.

    When a file can't be written, it says so once and writes no more: `condensery tensorboard` makes all of them again.
    """

    def __init__(self, root: Path, store: StudyStore, callback: LaunchCallback, inside: str = "") -> None:
        """Complete the runs of earlier launches below `root`, in its folder `inside` if that is named.

        TensorBoard calls a run by its path below `root`, so the folder's name is seen beside every figure.
        """
        self._root, self._store, self._callback = root / inside, store, callback
        self._shown = root
        self._runs: dict[int, Run] = {}  # that are open
        self._broken = False
        self._try(self._catch_up)

    def _catch_up(self) -> None:
        rows = [row for row in self._store.trials() if not (self._folder(row.number) / WHOLE).exists()]
        written = write_runs(self._root, rows, self._curve_of)
        so_far = f" ({counted(written, 'run')} of earlier launches written)" if written else ""
        self._callback.note(f"TensorBoard: tensorboard --logdir {self._shown}{so_far}")

    def _folder(self, number: int) -> Path:
        return self._root / trial_folder(number)

    def _curve_of(self, row: TrialRow) -> Sequence[Epoch]:
        store = self._store
        return store.patience.call(lambda: reader.read_curve(store.engine, row.id))

    def trial(self, row: TrialRow) -> None:
        """End the run of a trial that has ended; one that waits for its next attempt is written again then."""
        self._callback.trial(row)
        if row.state != TrialState.RUNNING:
            self._try(lambda: self._leave(row))

    def _leave(self, row: TrialRow) -> None:
        run = self._runs.pop(row.number, None)
        if run is not None:
            run.end(row)
        elif row.state in FINAL_STATES:
            folder = self._folder(row.number)
            if folder.exists() and not (folder / WHOLE).exists():  # it ended before its next attempt had an epoch
                write_runs(self._root, [row], self._curve_of)

    def curve(self, number: int, row: Epoch) -> None:
        """Add an epoch, which is recorded by now, to its trial's run."""
        self._callback.curve(number, row)
        self._try(lambda: self._add(number, row))

    def _add(self, number: int, epoch: Epoch) -> None:
        if number in self._runs:
            self._runs[number].add(epoch)
        else:
            trial = self._store.trial(number)
            self._runs[number] = Run(self._folder(number), trial, self._curve_of(trial))

    def under_way(self, number: int, report: ProgressReport) -> None:
        """Write nothing: a run has whole epochs."""
        self._callback.under_way(number, report)

    def progress(self, done: int, wanted: int) -> None:
        """Write nothing."""
        self._callback.progress(done, wanted)

    def note(self, text: str) -> None:
        """Write nothing."""
        self._callback.note(text)

    def close(self) -> None:
        """Close the runs that are open; the next launch completes them."""
        for run in self._runs.values():
            self._try(run.close)
        self._runs.clear()

    def _try(self, write: Callable[[], None]) -> None:
        """Write, unless that has failed before."""
        if self._broken:
            return
        try:
            write()
        except (OSError, CondenseryError) as error:
            self._broken = True
            self._callback.note(
                f"TensorBoard's event files can't be written any more ({error}); the search goes on without "
                "them, and `condensery tensorboard` makes them again"
            )
