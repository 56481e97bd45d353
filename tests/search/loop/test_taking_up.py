"""Trials that were ended early and go on later: as one training, from their checkpoints, wherever one is killed."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dashboards import panels
from dashboards.data.beliefs import origin_text
from dashboards.data.column_reader import read_columns
from dashboards.data.columns import View
from search.engines.events import EngineEvent, Resumed
from search.loop.files import TrialFiles
from search.loop.times import LoopTimes
from search.samplers.price_aware.past import Past
from search.samplers.proposer import Proposer
from search.samplers.stopping import Prediction, StoppingRule
from search.settings import RetentionSettings
from search.store import reader
from search.store.rows import TrialRow
from tests.search.samplers.test_stopping import EPOCHS, ROW, Slow, curve_of
from tests.search.tiny_studies import Bench, assert_consistent
from tests.workers.tiny import STEPS_PER_EPOCH, Recorder, digits, job, stop_at
from workers.file_names import CHECKPOINTS
from workers.training.job import TrialJob
from workers.training.reporting import TrainingStopped
from workers.training.trial import run_trial

ENDED, AT = 2, 0.5  # the trial that is ended early, and when
TRAININGS = 8


class Watching:
    """What the made-up rules of these tests have in common: they know how far each trial is, and predict nothing."""

    enabled = takes_up = True

    def __init__(self) -> None:
        self.progress: dict[int, float] = {}

    def observe(self, row: TrialRow, epochs: Any) -> None:
        for epoch in epochs:
            self.progress[row.number] = max(self.progress.get(row.number, 0.0), epoch["progress"])

    def finish(self, row: TrialRow) -> None:
        """Do nothing."""

    def forget(self, number: int) -> None:
        self.progress.pop(number, None)

    def predicted_final(self, number: int) -> Prediction | None:
        return None


class Changing(Watching):
    """Ends one trial early, and has hopes of it once two more have finished."""

    def __init__(self) -> None:
        super().__init__()
        self.finished: set[int] = set()

    def finish(self, row: TrialRow) -> None:
        if row.state == "done":
            self.finished.add(row.number)

    def verdict(self, row: TrialRow) -> str | None:
        return "ended early: it is hopeless" if row.number == ENDED and self.progress[ENDED] >= AT else None

    def predicted_final(self, number: int) -> Prediction | None:
        return Prediction(0.75, 0.01, 5.0)

    def prospect(self, number: int) -> float:
        return 0.9 if len(self.finished) >= ENDED + 2 else 0.0


class Killed(Exception):
    """The controller dies here."""


class WithCheckpoints(Slow):
    """Writes a checkpoint after every epoch and goes on from the newest one; remembers which epochs it trained."""

    def __init__(self, trained: list[tuple[str, int]], dies_at: int | None = None) -> None:
        super().__init__(lambda job: 0.5)
        self.trained, self.dies_at, self.polls = trained, dies_at, 0
        self._resumed: list[EngineEvent] = []

    def submit(self, job: TrialJob) -> None:
        super().submit(job)
        reached = max(map(_epoch, _checkpoints(job)), default=0)
        self._reached[job.number] = reached
        if reached:
            rows = [{**ROW, "epoch": at, "progress": at / EPOCHS, "val_top1": 0.5} for at in range(1, reached + 1)]
            self._resumed.append(Resumed(job.number, job.attempt, rows))

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        self.polls += 1
        if self.polls == self.dies_at:
            raise Killed
        before = dict(self._reached)
        running = {one.number: one for one in self._running}
        events, self._resumed = [*self._resumed, *super().poll(timeout_s)], []
        for number, running_job in running.items():
            stopping = number in self._stopped
            if self._reached[number] > before[number] and not stopping:
                self.trained.append((running_job.identity, self._reached[number]))
                folder = Path(running_job.folder) / CHECKPOINTS
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"checkpoint-{self._reached[number]:09d}.json").write_text(json.dumps({}))
        return events


def run_through_kills(bench: Bench, rule: Callable[[], StoppingRule], every: int | None) -> int:
    """Run a study to its end, killed after so many polls again and again; return how often it was."""
    for kills in range(60):
        bench.engine = WithCheckpoints([], dies_at=every)
        with contextlib.suppress(Killed):
            if bench.run(kills > 0, rule()) == "finished":
                return kills
    pytest.fail("the study did not end")


def _checkpoints(job: TrialJob) -> list[Path]:
    return sorted((Path(job.folder) / CHECKPOINTS).glob("*.json"))


def _epoch(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint-"))


def run(bench: Bench, engine: WithCheckpoints, resume: bool = False) -> str:
    bench.engine = engine
    return bench.run(resume, Changing())


def settings_of_study() -> dict[str, Any]:
    return {"study__trainings": TRAININGS, "search__stopping": "aggressive", "search__sampler": "random"}


def assert_taken_up_once(bench: Bench, trained: list[tuple[str, int]], repeats: int = 0) -> None:
    """The ended trial and its continuation are one training with one curve, and no checkpoint is left."""
    rows = bench.rows
    ended, later = rows[ENDED], [row for row in rows if row.continues is not None]
    assert [(row.continues, row.state) for row in later] == [(ENDED, "done")]
    assert (ended.state, ended.expected_score) == ("pruned", 0.75)
    assert (later[0].config, later[0].identity, later[0].seed) == (ended.config, ended.identity, ended.seed)
    assert (ended.duplicate_of, later[0].duplicate_of) == (None, None)
    assert curve_of(bench, ended) == list(range(1, int(AT * EPOCHS) + 1))
    assert curve_of(bench, later[0]) == list(range(1, EPOCHS + 1))
    assert sum(count - 1 for count in Counter(trained).values()) <= repeats
    assert {at for identity, at in trained if identity == ended.identity} == set(range(1, EPOCHS + 1))
    status = reader.read_status(bench.study.engine, bench.study.store.study_id)
    assert status.trainings == len(bench.done()) == TRAININGS
    assert not list((bench.files).glob(f"*/{CHECKPOINTS}*"))
    assert_consistent(bench)


def test_a_trial_whose_prospects_changed_goes_on_from_its_checkpoint_as_one_training_with_the_first(make_bench):
    bench, trained = make_bench(**settings_of_study()), []
    assert run(bench, WithCheckpoints(trained)) == "finished"
    assert_taken_up_once(bench, trained)
    assert run(bench, WithCheckpoints(trained), resume=True) == "finished"  # and nothing more
    assert_taken_up_once(bench, trained)


def test_both_trials_say_of_each_other_and_every_count_takes_them_for_one_training(make_bench):
    bench = make_bench(**settings_of_study())
    run(bench, WithCheckpoints([]))
    engine, study = bench.study.engine, bench.study.store.study_id
    (later,) = [row for row in bench.rows if row.continues is not None]
    assert (reader.continued_by(engine, study, ENDED), reader.continued_by(engine, study, 0)) == (later.number, None)
    why = origin_text(later, None, {})
    assert why == f"taken up again: trial {ENDED}, which had been ended early, may extend the front after all"
    columns = read_columns(engine, bench.settings.study.name)
    facts = dict(panels.progress_info(columns, View(columns.default_group)).facts)
    assert facts["trainings"] == f"{TRAININGS} of {TRAININGS}"


def test_one_that_is_taken_up_has_the_price_of_the_first_trial_and_is_not_measured_again(make_bench):
    bench = make_bench(**settings_of_study())
    run(bench, WithCheckpoints([]))
    (later,) = [row for row in bench.rows if row.continues is not None]
    engine = bench.study.engine
    first, second = (reader.read_latencies(engine, row.id) for row in (bench.rows[ENDED], later))
    assert first == second
    assert later.latency == bench.rows[ENDED].latency
    assert bench.probe.measured.count(later.config) == 1


@pytest.mark.parametrize("every", [7, 11])
def test_killed_anywhere_it_goes_on_and_nothing_is_trained_twice(make_bench, every: int):
    bench, trained, kills = make_bench(**settings_of_study()), [], 0
    while True:
        try:
            assert run(bench, WithCheckpoints(trained, dies_at=every), resume=kills > 0) == "finished"
            break
        except Killed:
            kills += 1
            assert kills < 60
    assert kills > 5
    assert_taken_up_once(bench, trained)


def test_a_trial_without_a_checkpoint_is_not_trained_anew(make_bench):
    class Forgetful(WithCheckpoints):
        def poll(self, timeout_s: float) -> list[EngineEvent]:
            events = super().poll(timeout_s)
            for path in (bench.files).glob(f"*/{CHECKPOINTS}/*"):
                path.unlink()
            return events

    bench = make_bench(**settings_of_study())
    assert run(bench, Forgetful([])) == "finished"
    assert bench.rows[ENDED].state == "pruned"
    assert not any(row.continues is not None for row in bench.rows)
    assert len(bench.done()) == TRAININGS - 1


def test_one_that_was_taken_up_and_cancelled_is_not_taken_up_again_and_still_has_no_equal(make_bench):
    class Cancelling(WithCheckpoints):
        def poll(self, timeout_s: float) -> list[EngineEvent]:
            for row in bench.rows:
                if row.continues is not None and not row.cancel_requested:
                    bench.study.store.request_cancel(row.number)
            return super().poll(timeout_s)

    bench = make_bench(**settings_of_study(), space={**SMALL})
    bench.times = LoopTimes(look_s=0.0)  # the request is seen before the training is over, however fast this machine is
    assert run(bench, Cancelling([])) in ("finished", "exhausted")
    later = [row for row in bench.rows if row.continues is not None]
    assert [row.state for row in later] == ["cancelled"]
    equal = [row for row in bench.rows if row.identity == bench.rows[ENDED].identity]
    assert {row.state for row in equal} <= {"pruned", "cancelled", "duplicate"}


def test_one_that_a_user_cancels_while_the_rule_ends_it_is_cancelled_and_does_not_go_on(make_bench):
    class StopsFirst(WithCheckpoints):
        def stop(self, number: int | None = None) -> None:
            super().stop(number)
            bench.study.store.request_cancel(number)

        def cancel(self, number: int) -> None:
            if number not in self._stopped:  # its worker has stopped before it hears of this
                super().cancel(number)

    bench = make_bench(**settings_of_study())
    bench.times = LoopTimes(look_s=0.0)
    assert run(bench, StopsFirst([])) == "finished"
    assert (bench.rows[ENDED].state, bench.rows[ENDED].reason) == ("cancelled", "cancelled by the user")
    assert not any(row.continues is not None for row in bench.rows)
    assert len(bench.done()) == TRAININGS
    assert_consistent(bench)


SMALL: dict[str, Any] = {
    "num_classes": 10,
    "input_shape": [1, 8, 8],
    "groups": [1, 2, 4],
    "condense_factor": [1, 2],
    "bottleneck": [1, 2],
    "num_stages": [1],
    "layers": [1],
    "growth": [4],
}


def test_the_sampler_learns_from_the_later_of_both_trials_alone(make_bench):
    bench = make_bench(**{**settings_of_study(), "search__sampler": "price-aware"})
    assert run(bench, WithCheckpoints([])) == "finished"
    proposer = Proposer(bench.settings)
    proposer.replay(bench.rows)
    trials = proposer._study.get_trials(deepcopy=False)
    past = Past.of(trials, len(trials), proposer.distributions, 0, proposer._study.directions, dict)
    assert len(past.observed) == TRAININGS
    assert all(past.whole)


def test_a_real_training_that_is_taken_up_trains_only_its_rest_and_ends_with_the_same_network(tmp_path: Path):
    cache, files = tmp_path / "images", TrialFiles(tmp_path, RetentionSettings())
    digits(cache)
    whole = run_trial(job(tmp_path / "whole", cache), Reporter())
    with pytest.raises(TrainingStopped):  # in its third attempt
        run_trial(job(files.folder(7), cache, number=7, attempt=3), Reporter(stop_at(11)))
    for _ in range(2):  # repeating it changes nothing
        files.carry_over(7, to=20)
    watch = Reporter()
    result = run_trial(job(files.folder(20), cache, number=20), watch)
    assert watch.steps == 3 * STEPS_PER_EPOCH - 11
    assert [row.epoch for row in (*watch.restored, *watch.rows)] == [1, 2, 3]
    assert result.network_sha256 == whole.network_sha256
    assert files.has_checkpoint(7)
    for number in (7, 20):
        files.clean(number)
        assert not files.has_checkpoint(number)


class Reporter(Recorder):
    """A reporter that obeys `at_step` as a worker obeys the controller's words."""

    def check(self) -> None:
        self.before_step(0.0)
