"""Our search: the real command, watched from outside; each finished training with the processor seconds until then.

Counted is everything that `condensery launch` does and starts: its own start, proposals, pricing, the worker. A
training ends between two looks at the processes, so its seconds are those at the moment that the study has recorded.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.condensebench.journal import Journal, open_journal
from benchmarks.headline.form import DATABASE, OURS, TITLES, file_of
from benchmarks.headline.peer import FAILED, TRAINED, journal_of
from benchmarks.headline.processor import tree_seconds
from search.settings import StudySettings
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.rows import TrialRow
from search.store.vocabulary import TrialState
from space.errors import CondenseryError, NotOurDatabase, StudyNotFound

ROOT = Path(__file__).parents[2]
LOOK_EVERY_S = 0.2
READ_EVERY_S = 2.0


def search(work: Path, seed: int, settings: StudySettings) -> None:
    """Launch the seed's study, or go on with it, until its trainings are in the journal.

    Raises:
        CondenseryError: the launch ended with an error; the path of its log is in the message.
    """
    with open_journal(journal_of(work, seed, OURS)) as journal:
        if sum(row["state"] == TRAINED for row in journal.rows()) < settings.study.trainings:
            _Watch(work, seed, settings, journal).run()


class _Watch:
    """Looks at one launch until it ends."""

    def __init__(self, work: Path, seed: int, settings: StudySettings, journal: Journal) -> None:
        self._work, self._seed, self._settings, self._journal = work, seed, settings, journal
        rows = journal.rows()
        self._written = {row["number"] for row in rows}
        self._before = rows[-1]["seconds"] if rows else 0.0
        self._at = [time.time()]
        self._spent = [0.0]

    def run(self) -> None:
        log = self._work / f"launch-{self._seed}.log"
        command = [sys.executable, str(ROOT / "condensery.py"), "launch", str(file_of(self._work, self._seed))]
        storage = ["--storage", f"sqlite:///{self._work / DATABASE}"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "--resume", *storage], cwd=self._work, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
            try:
                self._watch(process)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if process.returncode:
            raise CondenseryError(f"`condensery launch` ended with exit code {process.returncode}; see {log}.")

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        read_at = time.monotonic()
        while process.poll() is None:
            self._at.append(time.time())
            self._spent.append(max(self._spent[-1], tree_seconds(process.pid)))
            if time.monotonic() - read_at >= READ_EVERY_S:
                self._write_finished()
                read_at = time.monotonic()
            time.sleep(LOOK_EVERY_S)
        self._write_finished()

    def _write_finished(self) -> None:
        for row in self._finished():
            seconds = self._before + float(np.interp(row.finished_at or 0.0, self._at, self._spent))
            assert row.latency is not None
            ended = {"state": FAILED} if row.state == TrialState.FAILED else {"state": TRAINED, "top1": row.top1}
            self._journal.append(
                {
                    **ended,
                    "number": row.number,
                    "config": row.config.to_dict(),
                    "network": row.config.digest,
                    "macs": row.macs,
                    "latency_ms": row.latency.median_ms,
                    "inside": True,
                    "seconds": seconds,
                }
            )
            self._written.add(row.number)
            done = f"{len(self._written)}/{self._settings.study.trainings}"
            print(
                f"seed {self._seed}, {TITLES[OURS]}: {done}  {row.config}, "
                f"{row.macs / 1e6:.3f} M macs: {_ended_text(row)}, {seconds:.0f} processor seconds so far",
                flush=True,
            )

    def _finished(self) -> list[TrialRow]:
        """Return the trainings that ended since, in the order of their ends; failed ones count, as the peers' do."""
        path = self._work / DATABASE
        if not path.exists():
            return []
        engine = None
        try:
            engine = open_for_reading(f"sqlite:///{path}")
            study = reader.find_study(engine, self._settings.study.name)
            rows = reader.read_trials(engine, study.id, states=[TrialState.DONE, TrialState.FAILED])
        except (StudyNotFound, NotOurDatabase):
            return []  # it is only just starting
        finally:
            if engine is not None:
                engine.dispose()
        new = [row for row in rows if row.number not in self._written and row.latency is not None]
        return sorted(new, key=lambda row: row.finished_at or 0.0)


def _ended_text(row: TrialRow) -> str:
    return "failed" if row.top1 is None else f"top-1 {row.top1:.4f}"
