"""What must hold of a study whose processes were killed: judged by its tables and files, and by training it again."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import optuna
import sqlalchemy as sa

from benchmarks.kill_anywhere.causes import only_the_database, pairs_by_attempt, strange_attempts, strange_events
from benchmarks.kill_anywhere.forms import CHECKPOINT_EVERY_S, Form, Kill
from search.doctor import StudyUnderCheck, examine
from search.store import device_tables, reader
from search.store.connection.database import open_for_reading
from search.store.store import StudyStore
from search.store.vocabulary import FINAL_STATES, AttemptOutcome, JobState, LatencyKind, TrialState, Verdict
from search.study import OpenStudy, optuna_storage
from search.study_file import settings_from
from space.cost import cost_of
from workers.file_names import CHECKPOINTS, LOG_FILE, SETTINGS_FILE, trial_folder
from workers.files import file_hash
from workers.settings import TrainingSettings
from workers.training.job import TrialJob
from workers.training.trial import load_network, run_trial

# A checkpoint is due at the end of a step: one step, an epoch's evaluation and the looking (LOOK_S) come on top.
SLACK_S = 0.3


class Killed(Protocol):
    """What the judge must know of a study beside its tables and files; see `benchmarks.kill_anywhere.run.Run`."""

    form: Form
    url: str
    files: Path
    trainings: int
    epochs: int  # of each training
    kills: list[Kill]
    violations: list[str]
    taken_over: int
    gave_up: list[str]


def judge(run: Killed, compared: int | None = None) -> dict[str, Any]:
    """Check every promise; return figures and the violations. `compared` trainings (None: all) are repeated."""
    engine = open_for_reading(run.url)
    try:
        return _Judgement(run, engine).result(compared)
    finally:
        engine.dispose()


class _Judgement:
    def __init__(self, run: Killed, engine: sa.Engine) -> None:
        self.run, self.engine = run, engine
        self.study = reader.find_study(engine, "digits")
        self.rows = reader.read_trials(engine, self.study.id)
        self.attempts = reader.read_attempts(engine, self.study.id)
        store = StudyStore(engine, self.study.id)
        settings = settings_from(self.study.settings, "the stored settings")
        self.opened = OpenStudy(settings, run.url, engine, store, self.study.optuna_study_id)
        self.done = [row for row in self.rows if row.state == TrialState.DONE]
        self.violations = list(run.violations)

    def result(self, compared: int | None) -> dict[str, Any]:
        self._trials()
        self._attempts()
        self._causes()
        self._figures()
        self._curves_and_files()
        self._optuna()
        self._doctor()
        self._leftovers()
        if self.run.form.devices:
            self._device_jobs()
        redone = self._redone()
        equal = self._trained_again(compared)
        return {
            "form": self.run.form.name,
            "kills": len(self.run.kills),
            "trials": len(self.rows),
            "done": len(self.done),
            "attempts": sum(row.attempt for row in self.rows),
            "trainings_interrupted": len(redone),
            "redone_cpu_s_max": max(redone, default=0.0),
            "redone_cpu_s": round(sum(redone), 3),
            "trained_again_with_equal_bits": equal,
            "taken_over_by_stand_by": self.run.taken_over,
            "ended_while_database_away": self.run.gave_up,
            "violations": self.violations,
        }

    def _must(self, holds: bool, violation: str) -> None:
        if not holds:
            self.violations.append(violation)

    def _trials(self) -> None:
        states = Counter(row.state for row in self.rows)
        self._must(len(self.done) == self.run.trainings, f"{len(self.done)} done of {self.run.trainings}: {states}")
        numbers = [row.number for row in self.rows]
        self._must(numbers == list(range(len(numbers))), f"trials lost or repeated: {numbers}")
        for row in self.rows:
            self._must(row.state in FINAL_STATES, f"trial {row.number} is {row.state}")
            self._must(row.state != TrialState.FAILED, f"trial {row.number} failed: {row.reason}")
            self._must(row.mirrored, f"trial {row.number} was never mirrored into Optuna's tables")
        for identity, count in Counter(row.identity for row in self.done).items():
            self._must(count == 1, f"{count} results of identity {identity[:8]}")
        self._must(self.study.controller is None, f"{self.study.controller} still owns the study")

    def _attempts(self) -> None:
        for row in self.rows:
            attempts = [attempt for attempt in self.attempts if attempt.number == row.number]
            numbers = [attempt.attempt for attempt in attempts]
            self._must(numbers == list(range(1, row.attempt + 1)), f"attempts of {row.number}")
            outcomes = [attempt.outcome for attempt in attempts]
            self._must(None not in outcomes, f"trial {row.number} has an attempt without an end")
            expected = int(row.state == TrialState.DONE)
            self._must(outcomes.count(AttemptOutcome.DONE) == expected, f"trial {row.number}: outcomes {outcomes}")

    def _causes(self) -> None:
        events = reader.newest_events(self.engine, self.study.id, 10_000)
        self.violations += strange_attempts(self.attempts, self.run.kills)
        self.violations += strange_events(events, self.attempts, self.run.kills)

    def _figures(self) -> None:
        """Cost is what the config says; what was measured has its samples."""
        for row in self.rows:
            cost = cost_of(row.config)
            same = (row.macs, row.params) == (cost.macs, cost.params)
            self._must(same, f"trial {row.number} has {row.macs} macs, {row.params} params; its config has {cost}")
            for latency in reader.read_latencies(self.engine, row.id):
                samples = [sample for of_process in latency.samples_ms for sample in of_process]
                if latency.kind == LatencyKind.MEASURED:
                    within = bool(samples) and min(samples) <= latency.median_ms <= max(samples)
                    self._must(within, f"trial {row.number}: {len(samples)} samples for {latency.median_ms} ms")

    def _curves_and_files(self) -> None:
        for row in self.done:
            curve = reader.read_curve(self.engine, row.id)
            epochs = [point["epoch"] for point in curve]
            self._must(epochs == list(range(1, self.run.epochs + 1)), f"curve of trial {row.number}: epochs {epochs}")
            self._must(
                bool(curve) and curve[-1]["val_top1"] == row.top1, f"trial {row.number}: top-1 isn't its curve's"
            )
            prices = [price for price in reader.read_latencies(self.engine, row.id) if not price.verified]
            self._must(len(prices) == 1, f"trial {row.number} has {len(prices)} prices")
            files = reader.read_artifacts(self.engine, row.id)
            self._must(len(files) == 2, f"trial {row.number} has {len(files)} artifacts")
            for name, entry in files.items():
                path = Path(entry["path"])
                self._must(path.exists() and file_hash(path) == entry["sha256"], f"{name} of trial {row.number}")
            try:
                load_network(self._folder(row.number), row.config, files["network.safetensors"]["sha256"])
            except Exception as error:
                self.violations.append(f"the network of trial {row.number} can't be loaded: {error}")

    def _folder(self, number: int) -> Path:
        return self.run.files / trial_folder(number)

    def _optuna(self) -> None:
        storage = optuna_storage(self.run.url)
        trials = optuna.load_study(study_name="digits", storage=storage).get_trials(deepcopy=False)
        storage.engine.dispose()
        states = Counter(trial.state.name for trial in trials)
        self._must(states["RUNNING"] + states["WAITING"] == 0, f"Optuna's tables: {dict(states)}")
        self._must(states["COMPLETE"] == len(self.done), f"Optuna's tables: {dict(states)}, {len(self.done)} are done")
        theirs, ours = sorted(trial.number for trial in trials), [row.number for row in self.rows]
        self._must(theirs == ours, f"Optuna's tables hold trials {theirs}, ours {ours}")
        space, training_space = self.opened.settings.search_space(), self.opened.settings.training_space()
        by_number = {row.number: row for row in self.rows}
        for trial in trials:
            if (row := by_number.get(trial.number)) is not None:
                training = TrainingSettings.model_validate(row.training)
                params = {**space.to_params(row.config), **training_space.to_params(training)}
                same = trial.params == {name: params[name] for name in trial.distributions}
                self._must(same and bool(trial.params), f"trial {row.number} has other parameters in Optuna's tables")

    def _doctor(self) -> None:
        """What `condensery doctor` finds: Optuna's states and values beside ours, files, curves, the database."""
        self.violations += [
            f"doctor: {finding.problem}" for finding in examine(StudyUnderCheck(self.opened, self.run.files))
        ]

    def _leftovers(self) -> None:
        leftovers = [path for path in self.run.files.iterdir() if path.name.startswith("pricing-")]
        leftovers += [self._folder(row.number) / CHECKPOINTS for row in self.rows]
        leftovers += [path for row in self.done for path in self._folder(row.number).glob(".*")]
        for path in leftovers:
            self._must(not path.exists(), f"left behind: {path.relative_to(self.run.files)}")

    def _device_jobs(self) -> None:
        with self.engine.connect() as connection:
            jobs = connection.execute(sa.select(device_tables.job)).all()
            results = connection.execute(sa.select(device_tables.result)).all()
            leases = connection.execute(sa.select(device_tables.lease)).all()
        accepted = Counter(result.job_id for result in results if result.verdict == Verdict.ACCEPTED)
        for job in jobs:
            self._must(job.state == JobState.DONE, f"device job {job.id} is {job.state}: {job.reason}")
            self._must(
                accepted[job.id] == int(job.state == JobState.DONE), f"device job {job.id}: {accepted[job.id]} accepted"
            )
        unended = [lease.job_id for lease in leases if lease.outcome is None]
        self._must(not unended, f"leases without an end: {unended}")
        wrong = Counter(result.verdict for result in results if result.verdict not in (Verdict.ACCEPTED, Verdict.LATE))
        self._must(not wrong, f"device results: {dict(wrong)}")

    def _redone(self) -> list[float]:
        """What each interrupted training did again: no more than the interval, and from the newest checkpoint there."""
        starts = {row.number: _starts(self._folder(row.number) / LOG_FILE) for row in self.rows}
        for number, of_attempt in starts.items():
            steps = [step for _, step, _ in of_attempt]
            self._must(steps == sorted(steps), f"trial {number} went back: it began at the steps {steps}")
        redone_s, followed = [], pairs_by_attempt(self.attempts)
        for kill in self.run.kills:
            for hit in kill.trainings:
                pair = followed.get((hit["trial"], hit["attempt"]))
                if kill.role == "postgres" and pair is not None:  # its worker lived on, unless nothing else ended it
                    hit = hit | {"killed": hit["killed"] or only_the_database(*pair, self.run.kills)}
                name = f"{kill.role} killed ({kill.phase}), trial {hit['trial']}"
                later = [start for start in starts.get(hit["trial"], []) if start[0] > hit["attempt"]]
                if hit["killed"] and later:
                    _, step, steps = later[0]
                    checkpoint = max(hit["checkpoint"], 0)
                    self._must(step == checkpoint, f"{name}: began at step {step}, not at {checkpoint}")
                    if hit["phase"] == "finishing":
                        self._must(step == steps, f"{name}: trained, but began again at {step} of {steps}")
                if hit["killed"]:
                    redone_s.append(hit["redone_cpu_s"])
                    most = CHECKPOINT_EVERY_S + SLACK_S
                    self._must(hit["redone_cpu_s"] <= most, f"{name}: {hit['redone_cpu_s']} s done again, over {most}")
        return redone_s

    def _trained_again(self, count: int | None) -> int:
        """Train once more, undisturbed, and compare every bit of the network and every figure of the curve."""
        equal = 0
        chosen = sorted(self.done, key=lambda row: -row.attempt)[:count]
        for row in chosen:
            job = TrialJob.from_dict(json.loads((self._folder(row.number) / SETTINGS_FILE).read_text()))
            with tempfile.TemporaryDirectory() as folder:
                reporter = _Curve()
                result = run_trial(replace(job, folder=folder, checkpoint_every_s=1e9), reporter)
            files = reader.read_artifacts(self.engine, row.id)
            same = result.network_sha256 == files["network.safetensors"]["sha256"]
            self._must(same, f"trial {row.number}: another network than undisturbed")
            curve = [{key: point[key] for key in _COMPARED} for point in reader.read_curve(self.engine, row.id)]
            self._must(curve == reporter.rows, f"trial {row.number}: another curve than undisturbed")
            equal += same and curve == reporter.rows
        return equal


_COMPARED = ("epoch", "progress", "train_loss", "val_loss", "val_top1", "learning_rate", "condensing_stage", "form")


class _Curve:
    """A reporter that keeps the curve."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def earlier(self, rows: Any) -> None:
        """There is no checkpoint to go on from."""

    def curve(self, row: Any) -> None:
        self.rows.append({key: getattr(row, key) for key in _COMPARED})

    def under_way(self, report: Any) -> None:
        """Only whole epochs are compared."""

    def check(self) -> None:
        """Never end."""


def _starts(log: Path) -> list[tuple[int, int, int]]:
    """Return (attempt, first step, steps) of each attempt that came to train."""
    starts, attempt = [], 0
    with contextlib.suppress(OSError):
        for line in log.read_text().splitlines():
            if ", attempt " in line:
                attempt = int(line.partition(", attempt ")[2].partition(":")[0])
            elif " training from step " in line:
                step, _, steps = line.partition(" training from step ")[2].partition(" of ")
                starts.append((attempt, int(step), int(steps.partition(",")[0])))
    return starts
