"""The median rule: whom it compares, whom it ends, and that both engines obey it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.engines.base import Engine
from search.engines.events import Done, EngineEvent, EpochEnded, Failed, Lost, Stopped, cancelled
from search.engines.fake import FakeEngine, instant_result
from search.engines.local import LocalEngine
from search.samplers.stopping import RungRule, make_rule
from search.samplers.stopping.rungs import LEAST, RUNGS
from search.settings import EngineSettings
from search.store import reader
from search.store.rows import TrialRow
from space.cost import cost_of
from space.errors import InvalidSettings
from tests.search.tiny_studies import INSIDE, SPACE, Bench, assert_consistent, optuna_study, tiny_settings
from tests.workers.tiny import digits
from workers.file_names import LOG_FILE, NETWORK_FILE
from workers.latency.record import LatencyRecord
from workers.training.job import TrialJob

FIRST, SECOND = RUNGS
LATENCY = LatencyRecord("measured", "standard", "host:x", "onnxruntime", "1.20", 1, 1.0, 1.1, 0.9, 1.1, True)


def trial(number: int, macs: int = 100, ms: float = 1.0, **changes: Any) -> TrialRow:
    latency = replace(LATENCY, median_ms=ms, interval_low_ms=0.9 * ms, interval_high_ms=1.1 * ms, target="host")
    plain: dict[str, Any] = dict.fromkeys(TrialRow.__dataclass_fields__)
    plain |= {"number": number, "state": "running", "origin": "sampled", "config": INSIDE, "macs": macs}
    plain["objective"] = "top1"
    return TrialRow(**{**plain, "latency": latency, "others": (), **changes})


def epoch(progress: float, top1: float) -> dict[str, float]:
    return {"progress": progress, "val_top1": top1}


def rule_with(others: list[tuple[TrialRow, float]], rung: float = FIRST) -> RungRule:
    rule = RungRule(("host",))
    for row, top1 in others:
        rule.observe(row, [epoch(rung, top1)])
    return rule


GOOD = [(trial(number), 0.8 + number / 100) for number in range(LEAST)]


def judged(rule: RungRule, row: TrialRow, *epochs: dict[str, float]) -> str | None:
    rule.observe(row, epochs)
    return rule.verdict(row)


def test_a_trial_behind_the_median_of_networks_that_cost_no_more_is_ended_with_the_figures():
    why = judged(rule_with(GOOD), trial(9), epoch(FIRST, 0.5))
    assert why == (
        "ended early: top-1 50.0 % at 60 % of its schedule, while the median of 4 networks that cost no more was 81.5 %"
    )


def test_a_trial_at_the_median_or_ahead_goes_on():
    for top1 in (0.816, 0.9):
        assert judged(rule_with(GOOD), trial(9), epoch(FIRST, top1)) is None


def test_networks_that_are_all_as_accurate_all_go_on():
    level = [(trial(number), 0.5) for number in range(9)]
    rule = rule_with(level)
    assert [rule.verdict(row) for row, _ in level] == [None] * 9
    assert judged(rule, trial(9), epoch(FIRST, 0.5)) is None


def test_too_few_to_compare_with_end_nobody():
    assert judged(rule_with(GOOD[:-1]), trial(9), epoch(FIRST, 0.1)) is None


@pytest.mark.parametrize("dearer", [{"macs": 101}, {"ms": 1.2}])
def test_larger_or_slower_networks_say_nothing_about_a_smaller_or_faster_one(dearer: dict[str, Any]):
    larger = [(trial(number, **dearer), top1) for number, (_, top1) in enumerate(GOOD)]
    assert judged(rule_with(larger), trial(9), epoch(FIRST, 0.1)) is None


def test_a_latency_inside_the_interval_is_no_slower():
    slightly = [(trial(number, ms=1.09), top1) for number, (_, top1) in enumerate(GOOD)]
    assert judged(rule_with(slightly), trial(9), epoch(FIRST, 0.1)) is not None


def test_every_device_whose_latency_is_minimised_counts_and_no_other():
    def on_two(number: int, elsewhere_ms: float) -> TrialRow:
        row = trial(number)
        assert row.latency is not None
        second = replace(row.latency, target="pi5", median_ms=elsewhere_ms, interval_high_ms=elsewhere_ms)
        return replace(row, others=(second,))

    for devices, ends in ((("host", "pi5"), False), (("host",), True)):
        rule = RungRule(devices)
        for number in range(LEAST):
            rule.observe(on_two(number, 9.0), [epoch(FIRST, 0.9)])
        assert (judged(rule, on_two(9, 5.0), epoch(FIRST, 0.1)) is not None) == ends


def test_nothing_is_decided_before_the_first_rung_nor_by_the_deployed_networks_epoch():
    rule = rule_with(GOOD)
    assert judged(rule, trial(9), epoch(0.59, 0.1)) is None
    assert judged(rule, trial(9), epoch(1.0, 0.1)) is None


def test_a_trial_is_judged_at_the_newest_rung_it_has_reached():
    rule = rule_with(GOOD)
    late = trial(9)
    assert judged(rule, late, epoch(FIRST, 0.9), epoch(SECOND, 0.1)) is None  # nobody else is that far
    for row, _ in GOOD:
        rule.observe(row, [epoch(SECOND, 0.85)])
    assert rule.verdict(late) is not None


def test_the_first_epoch_behind_a_rung_stands_for_it_and_repeated_ones_change_nothing():
    rule = rule_with(GOOD)
    assert judged(rule, trial(9), epoch(0.65, 0.9), epoch(0.7, 0.1), epoch(0.65, 0.1)) is None


def test_what_somebody_asked_for_goes_on():
    assert judged(rule_with(GOOD), trial(9, origin="enqueued"), epoch(FIRST, 0.1)) is None


def test_a_trial_that_begins_anew_is_forgotten():
    rule = rule_with(GOOD)
    rule.observe(trial(9), [epoch(FIRST, 0.1)])
    rule.forget(9)
    assert rule.verdict(trial(9)) is None


def test_the_end_of_a_trial_is_predicted_by_what_others_gained_from_its_rung_on():
    rule = rule_with(GOOD)
    rule.observe(trial(9), [epoch(FIRST, 0.5)])
    for row, top1 in GOOD:
        assert rule.predicted_final(9) is None or row.number > 1
        rule.finish(replace(row, state="done", top1=top1 + 0.1 * (row.number + 1)))
    found = rule.predicted_final(9)
    assert found is not None
    assert found.mean == pytest.approx(0.75)
    assert rule.predicted_final(10) is None


@given(
    figures=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.floats(0.0, 1.0)), min_size=1, max_size=20),
    mine=st.tuples(st.integers(1, 4), st.integers(1, 4), st.floats(0.0, 1.0)),
)
def test_only_what_more_than_half_of_the_cheaper_beat_is_ended(figures, mine):
    others = [(trial(n, macs, float(ms)), top1) for n, (macs, ms, top1) in enumerate(figures)]
    macs, ms, top1 = mine
    why = judged(rule_with(others), trial(99, macs, float(ms)), epoch(FIRST, top1))
    cheaper = [their for (row, their) in others if row.macs <= macs and row.latency.median_ms <= 1.1 * ms]
    ahead = sum(their > top1 for their in cheaper)
    if why is not None:
        assert len(cheaper) >= LEAST
        assert 2 * ahead >= len(cheaper)
    elif len(cheaper) >= LEAST:
        assert 2 * ahead <= len(cheaper)


def test_the_setting_names_a_rule():
    assert tiny_settings().search.stopping == "none"
    with pytest.raises(InvalidSettings, match=r"search\.stopping"):
        tiny_settings(search__stopping="median")


# -- what the controller makes of it --

EPOCHS = 10


class Slow(FakeEngine):
    """Every poll brings every running job one epoch of ten further; `top1` says how accurate it is then."""

    def __init__(self, top1: Callable[[TrialJob], float], slots: int = 1) -> None:
        super().__init__(slots)
        self._top1, self._reached = top1, dict[int, int]()

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        events = []
        for job in list(self._running):
            at = self._reached[job.number] = self._reached.get(job.number, 0) + 1
            if job.number in self._cancelled:
                self._cancelled.remove(job.number)
                events.append(cancelled(job))
            elif job.number in self._stopped:
                events.append(Stopped(job.number, job.attempt))
            else:
                row = {**ROW, "epoch": at, "progress": at / EPOCHS, "val_top1": self._top1(job)}
                events.append(EpochEnded(job.number, job.attempt, row))
                if at == EPOCHS:
                    events.append(Done(job.number, job.attempt, instant_result(job)))
            if events and not isinstance(events[-1], EpochEnded):
                self._running.remove(job)
        return events


ROW = {
    "train_loss": 1.0,
    "val_loss": 1.0,
    "learning_rate": 0.1,
    "condensing_stage": 1,
    "form": "condensed",
    "seconds": 1.0,
}


def large_is_bad(job: TrialJob) -> float:
    return 1.0 / (1.0 + cost_of(job.config).macs / 1e4)


def curve_of(bench: Bench, row: TrialRow) -> list[int]:
    assert bench.study is not None
    return [epoch["epoch"] for epoch in reader.read_curve(bench.study.engine, row.id)]


def pruned_of(bench: Bench) -> list[TrialRow]:
    return [row for row in bench.rows if row.state == "pruned"]


@pytest.mark.parametrize("stopping", ["none", "rungs", "conservative", "aggressive"])
def test_the_settings_know_which_rules_let_a_training_go_on_later(stopping: str):
    settings = tiny_settings(search__stopping=stopping)
    assert settings.search.pauses == make_rule(settings).takes_up


def test_a_training_that_is_ended_keeps_its_curve_and_counts_as_one_of_the_study(database_bench):
    bench = database_bench(study__trainings=12, search__stopping="rungs")
    bench.engine = Slow(large_is_bad)
    assert bench.run() == "finished"
    pruned = pruned_of(bench)
    assert pruned
    assert len(pruned) + len(bench.done()) == 12
    for row in pruned:
        assert (row.reason or "").startswith("ended early: top-1 ")
        assert row.top1 is None
        assert curve_of(bench, row) == list(range(1, int(FIRST * EPOCHS) + 1))
    assert_consistent(bench)
    with optuna_study(bench) as study:
        assert {study.trials[row.number].state.name for row in pruned} == {"PRUNED"}
    assert bench.run(resume=True) == "finished"  # and nothing is trained again
    assert len(bench.rows) == len(pruned) + len(bench.done()) + sum(row.state == "duplicate" for row in bench.rows)


def test_a_training_whose_loss_is_nan_once_it_was_told_to_end_has_ended_early(make_bench):
    class Diverging(Slow):
        def poll(self, timeout_s: float) -> list[EngineEvent]:
            return [
                replace(event, reason="the loss became nan") if isinstance(event, Failed) else event
                for event in super().poll(timeout_s)
            ]

    bench = make_bench(study__trainings=12, search__stopping="rungs")
    bench.engine = Diverging(large_is_bad)
    assert bench.run() == "finished"
    assert pruned_of(bench)
    assert all((row.reason or "").startswith("ended early: ") for row in pruned_of(bench))
    assert not any(row.state == "failed" for row in bench.rows)
    assert_consistent(bench)


def test_without_the_setting_everything_is_trained_to_its_end(make_bench):
    bench = make_bench(study__trainings=12)
    bench.engine = Slow(large_is_bad)
    assert bench.run() == "finished"
    assert len(bench.done()) == 12


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", pytest.param("gp", marks=pytest.mark.soak), "random"])
def test_every_sampler_goes_on_after_trainings_that_were_ended(make_bench, sampler: str):
    bench = make_bench(study__trainings=14, search__stopping="rungs", search__sampler=sampler)
    bench.engine = Slow(large_is_bad, slots=2)
    assert bench.run() == "finished"
    assert pruned_of(bench)
    assert_consistent(bench)


def test_a_controller_that_goes_on_judges_by_what_is_recorded(make_bench):
    """One that was killed between an epoch and its verdict: the next decides the same, though it heard of no epoch."""
    bench = make_bench(study__trainings=12, search__stopping="rungs")
    bench.engine = Slow(large_is_bad)
    assert bench.run() == "finished"
    controller = bench.controller(resume=True)
    rule = controller.state.rule
    pruned = pruned_of(bench)
    assert [rule.verdict(row) for row in pruned] == [None] * len(pruned)  # it has read nothing yet
    controller.trainings.replay(bench.rows)
    assert None not in [rule.verdict(row) for row in pruned]
    controller.candidates.close()
    controller.store.release()


def test_epochs_that_come_in_one_batch_are_judged_one_by_one(make_bench):
    """A verdict at the first rung isn't lost because the trial has reached the second by the time its news come."""

    class InBatches(Slow):
        def poll(self, timeout_s: float) -> list[EngineEvent]:
            return [event for _ in range(4) for event in super(InBatches, self).poll(timeout_s)]

    bench = make_bench(study__trainings=12, search__stopping="rungs")
    bench.engine = InBatches(large_is_bad)
    assert bench.run() == "finished"
    one_by_one = [row.number for row in pruned_of(bench)]
    reasons = [row.reason or "" for row in pruned_of(bench)]
    assert one_by_one
    assert all("at 60 % of its schedule" in reason for reason in reasons)
    assert_consistent(bench)


def test_a_worker_that_dies_once_it_was_told_to_end_has_ended(make_bench):
    class Dying(Slow):
        def poll(self, timeout_s: float) -> list[EngineEvent]:
            return [
                Lost(event.number, event.attempt, "it was killed") if isinstance(event, Failed) else event
                for event in super().poll(timeout_s)
            ]

    bench = make_bench(study__trainings=12, search__stopping="rungs")
    bench.engine = Dying(large_is_bad)
    assert bench.run() == "finished"
    assert {row.attempt for row in pruned_of(bench)} == {1}
    assert_consistent(bench)


# -- real trainings --

ONE_NETWORK = {
    **SPACE,
    "groups": [2],
    "condense_factor": [2],
    "bottleneck": [1],
    "num_stages": [1],
    "layers": [1],
}
HOPELESS = {"low": 1e-7, "high": 0.2, "log": True}  # learning rates, of which most teach nothing


def one_worker(kind: str) -> Engine:
    if kind == "local":
        return LocalEngine(1, 1, ())
    pytest.importorskip("ray", reason="Ray is not installed")
    from search.engines.ray.engine import RayTuneEngine  # here: other tests don't wait for Ray

    return RayTuneEngine(EngineSettings(kind="ray", workers=1, device="cpu"), set(), [].append)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.long)])
def test_a_real_training_that_the_rule_gives_up_is_ended(make_bench, kind: str):
    epochs = {"local": 20, "ray": 120}[kind]  # Ray takes a while to say that one should end
    bench = make_bench(
        space=ONE_NETWORK,
        training={"epochs": epochs, "batch_size": 64, "learning_rate": HOPELESS},
        study__trainings=8,
        search__stopping="rungs",
        search__sampler="random",
        engine__workers=1,
        limits__checkpoint_every_s=0.2,
    )
    digits(bench.files)
    bench.engine = one_worker(kind)
    try:
        assert bench.run() == "finished"
    finally:
        bench.engine.close()
    pruned, done = pruned_of(bench), bench.done()
    assert len(pruned) + len(done) == 8
    assert pruned
    assert max(row.number for row in done[:LEAST]) < min(row.number for row in pruned)
    for row in pruned:
        folder: Path = bench.files / f"trial-{row.number:05d}"
        reached = curve_of(bench, row)
        assert math.ceil(FIRST * epochs) <= len(reached) < epochs
        assert reached == list(range(1, len(reached) + 1))
        assert not (folder / NETWORK_FILE).exists()
        assert not (folder / "checkpoints").exists()
        assert (folder / LOG_FILE).exists()
    assert_consistent(bench)
