"""When no other candidates are missing, every trial that was ended early and isn't hopeless goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from search.engines.events import EngineEvent, Failed
from search.loop.callbacks import SilentCallback
from search.loop.times import LoopTimes
from search.samplers.stopping import HOPELESS
from search.store.rows import TrialRow
from space.errors import TrainingFailed
from tests.search.loop.test_taking_up import SMALL, Watching, WithCheckpoints, run_through_kills
from tests.search.samplers.test_stopping import EPOCHS, curve_of
from tests.search.tiny_studies import Bench, assert_consistent

AT = 0.3  # where every trial is ended
AGAIN = 0.6  # where one that was taken up is ended again, if it is
TRAININGS = 6
WITHOUT_HOPE = 0


class EndsAll(Watching):
    """Ends every trial early, and holds all but one to be less likely on the front than new networks are."""

    def __init__(self, ended_again: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.ended_again = ended_again
        self.hopeless = {WITHOUT_HOPE}

    def verdict(self, row: TrialRow) -> str | None:
        at = self.progress.get(row.number, 0.0)
        if row.continues is None:
            return "ended early: as all are" if at >= AT else None
        if row.continues in self.ended_again and at >= AGAIN:
            self.hopeless.add(row.number)
            return "ended early: it has become hopeless"
        return None

    def prospect(self, number: int) -> float:
        return 0.0 if number in self.hopeless else HOPELESS + 0.001 * number


class Counting(WithCheckpoints):
    """Remembers how many trials ran at a time that had been ended before."""

    def __init__(self, bench: Bench, workers: int) -> None:
        super().__init__([])
        self._bench, self.slots, self.most = bench, workers, 0

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        continuing = {row.number for row in self._bench.rows if row.continues is not None}
        self.most = max(self.most, sum(job.number in continuing for job in self._running))
        return super().poll(timeout_s)


class Hindered(WithCheckpoints):
    """Keeps a trial that goes on from its end: it fails, a user cancels it, or the budget has become tighter."""

    def __init__(self, bench: Bench, hindrance: str) -> None:
        super().__init__([])
        self._bench, self._hindrance, self.state = bench, hindrance, None

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        events = super().poll(timeout_s)
        later = [row for row in self._bench.rows if row.continues is not None]
        paused = [row for row in self._bench.rows if row.state == "pruned" and row.continues is None]
        if self._hindrance == "infeasible" and len(paused) == TRAININGS - 1 and self.state is not None:
            self.state.budget = replace(self.state.budget, max_macs=max(row.macs for row in self._bench.rows) - 1)
        if self._hindrance == "cancelled" and later and not later[0].cancel_requested:
            self._bench.study.store.request_cancel(later[0].number)
        if self._hindrance == "failed" and later and later[0].state == "running" and self._running:
            self._running.clear()
            return [Failed(later[0].number, later[0].attempt, "it broke", TrainingFailed.exit_code)]
        return events


def run(
    bench: Bench, rule: EndsAll, workers: int = 1, engine: WithCheckpoints | None = None
) -> tuple[str, WithCheckpoints]:
    engine = engine or Counting(bench, workers)
    bench.engine = engine
    controller = bench.controller()
    controller.state.rule = rule
    if isinstance(engine, Hindered):
        engine.state = controller.state
    try:
        return controller.run(), engine
    finally:
        controller.store.release()


def settings_of_study(**changes: Any) -> dict[str, Any]:
    plain = {"study__trainings": TRAININGS, "search__stopping": "aggressive", "engine__workers": 1}
    return {**plain, "search__sampler": "random", **changes}


def test_all_that_are_not_hopeless_go_on_at_the_end_the_best_first(make_bench):
    bench = make_bench(**settings_of_study())
    assert run(bench, EndsAll())[0] == "finished"
    pruned = [row.number for row in bench.rows if row.state == "pruned"]
    later = [row for row in bench.rows if row.continues is not None]
    assert len(pruned) == TRAININGS
    assert {row.state for row in later} == {"done"}
    assert [row.continues for row in later] == sorted(set(pruned) - {WITHOUT_HOPE}, reverse=True)
    assert min(row.number for row in later) > max(pruned)  # none before all had their turn
    assert_consistent(bench)


class Notes(SilentCallback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def test_it_is_said_once_that_the_paused_go_on_and_how_many_have(make_bench):
    bench = make_bench(**settings_of_study())
    bench.callback = notes = Notes()
    assert run_through_kills(bench, EndsAll, 11) > 2
    begun = [text for text in notes.texts if text.startswith("nothing new is tried any more")]
    hopeful = TRAININGS - 1
    assert begun == [
        f"nothing new is tried any more; {hopeful} trials that were paused may still extend the front and go on"
    ]
    counts = [text.split("; ")[1] for text in notes.texts if "goes on" in text and text.startswith("trial")]
    have = ["has", *["have"] * (hopeful - 1)]
    assert counts == [f"{at + 1} of {TRAININGS} that were paused {verb} gone on" for at, verb in enumerate(have)]


def test_as_many_go_on_at_a_time_as_there_are_workers(make_bench):
    bench = make_bench(**settings_of_study(engine__workers=3))
    ending, engine = run(bench, EndsAll(), workers=3)
    assert ending == "finished"
    assert engine.most == 3
    assert len(bench.done()) == TRAININGS - 1
    assert_consistent(bench)


def test_one_that_is_ended_again_does_not_keep_the_others_from_going_on(make_bench):
    bench = make_bench(**settings_of_study())
    ending, _ = run(bench, EndsAll(ended_again=(4,)))
    assert ending == "finished"
    later = {row.continues: row for row in bench.rows if row.continues is not None}
    assert later.keys() == {row.number for row in bench.rows if row.state == "pruned" and row.continues is None} - {0}
    again = later.pop(4)
    assert again.state == "pruned"
    assert len(curve_of(bench, again)) == AGAIN * EPOCHS
    assert {row.state for row in later.values()} == {"done"}


@pytest.mark.parametrize("hindrance", ["cancelled", "failed", "infeasible"])
def test_one_that_ends_without_a_result_does_not_keep_the_others_from_going_on(make_bench, hindrance: str):
    bench = make_bench(**settings_of_study())
    bench.times = LoopTimes(look_s=0.0)
    assert run(bench, EndsAll(), engine=Hindered(bench, hindrance))[0] == "finished"
    paused = {row.number for row in bench.rows if row.state == "pruned"}
    later = {row.continues: row.state for row in bench.rows if row.continues is not None}
    assert later.keys() == paused - {WITHOUT_HOPE}
    assert set(later.values()) == {hindrance, "done"}
    assert_consistent(bench)


def test_they_also_go_on_when_every_network_of_a_space_has_been_tried(make_bench):
    bench = make_bench(**settings_of_study(study__trainings=500, space=SMALL))
    ending, _ = run(bench, EndsAll())
    assert ending == "exhausted"
    tried = [row for row in bench.rows if row.state == "pruned"]
    assert len(tried) < 500
    assert len(bench.done()) == len(tried) - 1
    assert not list(bench.files.glob("*/checkpoints*"))
