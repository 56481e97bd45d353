"""The curve rule: what it predicts, whom it ends, and that the controller obeys it in a replay."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.engines.events import Done, EngineEvent
from search.samplers.price_aware.past import Past
from search.samplers.proposer import Proposer
from search.samplers.stopping import HOPELESS, CurveRule, NeverStop, RungRule, expected_score, make_rule
from search.samplers.stopping.curves import CHANCES, LEAST
from search.samplers.stopping.final_accuracy import Model
from search.store.rows import TrialRow
from space.cost import cost_of
from tests.search.samplers.test_stopping import Slow, pruned_of, trial
from tests.search.tiny_studies import assert_consistent, tiny_settings

HALF = 0.5


def curve(*top1: float, last: float = HALF) -> list[dict[str, float]]:
    """Epochs with these accuracies, evenly spread up to some progress."""
    return [
        {"progress": last * (place + 1) / len(top1), "val_top1": value, "val_loss": 1 - value, "train_loss": 1 - value}
        for place, value in enumerate(top1)
    ]


def done(rule: CurveRule, number: int, at_half: float, final: float, **changes: Any) -> None:
    """Teach a rule a finished trial."""
    row = trial(number, training={}, params=100, **changes)
    rule.observe(row, curve(at_half - 0.1, at_half))
    rule.finish(replace(row, state="done", top1=final))


def taught(chance: float = CHANCES["conservative"], noise: float = 0.001) -> CurveRule:
    """A rule that knows twelve equally large networks, each of which ends with 0.6 of its errors at half."""
    rule, rng = CurveRule(("host",), chance), np.random.default_rng(0)
    for number in range(12):
        at_half = 0.5 + number / 50
        done(rule, number, at_half, 0.4 + 0.6 * at_half + float(rng.normal(0, noise)))
    return rule


def judged(rule: CurveRule, row: TrialRow, at_half: float) -> str | None:
    rule.observe(row, curve(at_half - 0.1, at_half))
    return rule.verdict(row)


def mine(number: int = 99, **changes: Any) -> TrialRow:
    return trial(number, **{"training": {}, "params": 100, **changes})


def test_a_hopeless_trial_is_ended_with_the_figures_and_its_final_accuracy_stays_predicted():
    rule = taught()
    why = judged(rule, mine(), 0.6) or ""
    assert why.startswith("ended early: at 50 % of its schedule its final top-1 is expected to be 76.")
    said = (
        "%, while trial 11 reached 83.2 % and costs no more; its chance of more is below 0.01 %, and the rest of its "
    )
    assert why.endswith(f"{said}schedule asks for 5 %")
    found = rule.predicted_final(99)
    assert found is not None
    assert found.mean == pytest.approx(0.76, abs=0.005)
    assert 0 < found.spread < 0.01


def test_a_trial_that_may_still_become_better_goes_on():
    assert judged(taught(), mine(), 0.7195) is None


@pytest.mark.parametrize("dearer", [{"macs": 99}, {"ms": 0.99}])
def test_a_trial_that_costs_less_than_all_others_goes_on_however_bad_it_is(dearer: dict[str, Any]):
    assert judged(taught(), mine(**dearer), 0.2) is None


def test_what_somebody_asked_for_goes_on():
    assert judged(taught(), mine(origin="enqueued"), 0.2) is None


def test_too_few_finished_trials_end_nobody():
    rule = CurveRule(("host",), 0.9)
    for number in range(LEAST - 1):
        done(rule, number, 0.7 + number / 100, 0.8 + number / 100)
    assert judged(rule, mine(), 0.1) is None
    done(rule, LEAST, 0.81, 0.91)
    assert judged(rule, mine(number=98), 0.1) is not None


def test_a_trial_that_was_ended_neither_sets_the_bar_nor_teaches():
    rule = taught()
    before = judged(rule, mine(), 0.6)
    assert before is not None
    ended = mine(number=50)
    rule.observe(ended, curve(0.9, 0.99))
    rule.finish(replace(ended, state="pruned"))
    rule.forget(99)
    assert judged(rule, mine(), 0.6) == before


def test_a_latency_of_another_kind_is_never_compared():
    row = mine()
    assert row.latency is not None
    assert judged(taught(), replace(row, latency=replace(row.latency, kind="predicted")), 0.2) is None


def test_epochs_that_are_repeated_or_close_together_change_nothing():
    rule, row = taught(), mine()
    rule.observe(row, curve(0.5, 0.6))
    why = rule.verdict(row)
    rule.observe(row, curve(0.9, 0.99))
    assert rule.verdict(row) == why
    rule.observe(row, [{"progress": 0.52, "val_top1": 0.99, "val_loss": 0.0, "train_loss": 0.0}])
    assert rule.verdict(row) is None  # the next verdict is due at 55 %


def test_trials_with_other_numbers_of_epochs_are_compared_at_the_same_progress():
    rule = taught()
    longer = mine()
    rule.observe(longer, curve(0.38, 0.42, 0.46, 0.5, 0.54, 0.6))
    assert rule.verdict(longer) is not None


def test_a_training_whose_loss_is_not_finite_is_not_judged():
    rule, row = taught(), mine()
    rule.observe(row, [{**epoch, "val_loss": float("nan")} for epoch in curve(0.5, 0.6)])
    assert rule.verdict(row) is None


figures = st.lists(st.tuples(st.integers(1, 3), st.floats(0.1, 0.8), st.floats(0.0, 0.2)), min_size=8, max_size=20)
own = st.tuples(st.integers(1, 3), st.floats(0.1, 0.8))


def taught_by(known: list[tuple[int, float, float]], chance: float) -> CurveRule:
    rule = CurveRule(("host",), chance)
    for number, (macs, at_half, gain) in enumerate(known):
        done(rule, number, at_half, at_half + gain, macs=macs)
    return rule


@given(known=figures, me=own)
@settings(max_examples=40)
def test_a_rule_that_asks_for_less_ends_a_part_of_what_one_that_asks_for_more_ends(known, me):
    whys = [judged(taught_by(known, chance), mine(macs=me[0]), me[1]) for chance in (0.5, 0.1, 0.02)]
    ended = [why is not None for why in whys]
    assert ended == sorted(ended, reverse=True)


@given(known=figures, macs=st.integers(1, 3))
@settings(max_examples=40)
def test_a_trial_that_is_ahead_of_all_cheaper_ones_is_never_ended(known, macs):
    assert judged(taught_by(known, 0.6), mine(macs=macs), max(at_half for _, at_half, _ in known) + 0.01) is None


@given(known=figures, me=own)
@settings(max_examples=40)
def test_only_what_a_finished_network_that_costs_no_more_is_expected_to_beat_is_ended(known, me):
    rule = taught_by(known, 0.9)
    if judged(rule, mine(macs=me[0]), me[1]) is not None:
        found = rule.predicted_final(99)
        assert found is not None
        assert found.mean <= max(at_half + gain for macs, at_half, gain in known if macs <= me[0])


def test_what_has_a_chance_of_5_percent_happens_about_as_often():
    rng, unlikely = np.random.default_rng(1), []
    for _ in range(300):
        features = rng.normal(size=(16, 4))
        final = 0.7 + features @ [0.02, -0.01, 0.0, 0.005] + rng.normal(0, 0.01, 16)
        sets = [features[:, :2], features]
        found = Model.of([one[:-1] for one in sets], final[:-1], 15).predict([one[-1] for one in sets])
        unlikely.append(found.above(final[-1]) < 0.05)
    assert 0.015 < np.mean(unlikely) < 0.1


def test_the_more_of_its_schedule_is_left_the_better_a_chance_a_training_needs():
    rule = taught(chance=0.9, noise=0.01)
    rule.observe(mine(), curve(0.61, 0.71, last=0.5))
    chance = rule.prospect(99)
    assert 0.05 < chance < 0.9 * 0.5
    assert "the rest of its schedule asks for 45 %" in (rule.verdict(mine()) or "")
    late = CurveRule(("host",), 0.9)
    for number, trial_row in enumerate([mine(n) for n in range(12)]):
        at_95 = 0.5 + number / 50
        late.observe(trial_row, curve(at_95 - 0.1, at_95, last=0.95))
        final = 0.4 + 0.6 * at_95 + 0.01 * (-1) ** number
        late.finish(replace(trial_row, state="done", top1=final))
    late.observe(mine(), curve(0.61, 0.71, last=0.95))
    assert late.prospect(99) > 0.05
    assert late.verdict(mine()) is None


def test_one_that_was_taken_up_is_ended_only_when_it_is_hopeless():
    rule = taught(chance=0.9, noise=0.01)
    again = mine(100, continues=99)
    for row in (mine(), again):
        rule.observe(row, curve(0.61, 0.71))
    assert HOPELESS < rule.prospect(100) == rule.prospect(99)
    assert rule.verdict(mine()) is not None
    assert rule.verdict(again) is None
    hopeless = mine(101, continues=98)
    rule.observe(hopeless, curve(0.2, 0.3))
    assert "the rest of its schedule asks for 0.5 %" in (rule.verdict(hopeless) or "")


def test_one_that_was_ended_later_teaches_what_an_earlier_epoch_is_worth_until_it_is_taken_up():
    def believed(*, ended: bool, continued: bool = False) -> float:
        rule = taught()
        for number in range(20, 24) if ended else ():
            row = mine(number)
            rule.observe(row, curve(0.5, 0.6, 0.62, last=0.75))
            rule.finish(replace(row, state="pruned", expected_score=0.7))
            if continued:
                rule.observe(mine(number + 10, continues=number), curve(0.5, 0.6, 0.62, last=0.75))
        rule.observe(mine(), curve(0.5, 0.6))
        found = rule.predicted_final(99)
        assert found is not None
        return found.mean

    assert believed(ended=True) < believed(ended=False) - 0.001
    assert believed(ended=True, continued=True) == believed(ended=False)


def test_the_setting_chooses_the_rule():
    def rule(name: str) -> Any:
        return make_rule(tiny_settings(search__stopping=name))

    assert isinstance(rule("none"), NeverStop)
    assert isinstance(rule("rungs"), RungRule)
    assert rule("aggressive").chance > rule("conservative").chance > HOPELESS


# -- what the controller makes of it --


class Worse(Slow):
    """Ends with the accuracy that its epochs have, in which a larger network is worse."""

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        return [
            replace(event, result=replace(event.result, top1=accuracy(event.result.macs)))
            if isinstance(event, Done)
            else event
            for event in super().poll(timeout_s)
        ]


def accuracy(macs: int) -> float:
    return 1.0 / (1.0 + macs / 1e4)


def test_a_controller_ends_hopeless_trainings_and_the_next_one_would_decide_the_same(make_bench):
    bench = make_bench(study__trainings=16, search__stopping="aggressive", search__sampler="random")
    bench.engine = Worse(lambda job: accuracy(cost_of(job.config).macs))
    assert bench.run() == "finished"
    pruned = pruned_of(bench)
    assert pruned
    for row in pruned:
        better = [other for other in bench.done() if other.macs <= row.macs and other.top1 >= accuracy(row.macs)]
        assert better, "it would have been on the front"
    assert_consistent(bench)
    controller = bench.controller(resume=True)
    controller.trainings.replay(bench.rows)
    assert None not in [controller.state.rule.verdict(row) for row in pruned]
    assert None not in [controller.state.rule.predicted_final(row.number) for row in pruned]
    controller.candidates.close()
    controller.store.release()


@pytest.mark.parametrize("stopping", ["aggressive", "rungs"])
def test_what_was_ended_early_teaches_the_sampler_and_the_next_controller_asks_the_same(make_bench, stopping: str):
    bench = make_bench(study__trainings=20, search__stopping=stopping)
    bench.engine = Worse(lambda job: accuracy(cost_of(job.config).macs))
    controller = bench.controller()
    assert controller.run() == "finished"
    pruned = pruned_of(bench)
    assert pruned
    for row in pruned:
        assert row.expected_score == pytest.approx(accuracy(row.macs), abs=0.05)
    assert all(row.expected_score is None for row in bench.done())
    resumed, ignorant = Proposer(bench.settings), Proposer(bench.settings)
    resumed.replay(bench.rows)
    ignorant.replay([replace(row, expected_score=None) for row in bench.rows])
    for proposer in (controller.proposer, resumed):
        assert {row.number: row.expected_score for row in pruned}.items() <= learnt(proposer).items()
    assert not learnt(ignorant).keys() & {row.number for row in pruned}
    live = proposals(controller.proposer)
    assert proposals(resumed) == live
    assert proposals(ignorant) != live
    controller.store.release()


def learnt(proposer: Proposer) -> dict[int, float]:
    """The accuracies that the sampler's model is fitted on, by number of their trials."""
    trials = proposer._study.get_trials(deepcopy=False)
    numbers = {str(trial.params): trial.number for trial in trials if trial.state.is_finished()}
    past = Past.of(trials, len(trials), proposer.distributions, 0, proposer._study.directions, dict)
    return {numbers[str(params)]: top1 for params, top1 in zip(past.observed, past.accuracies, strict=True)}


def proposals(proposer: Proposer) -> list[Any]:
    return [proposer.ask(None).config for _ in range(4)]


def test_an_ended_trial_has_prospects_again_once_the_model_learns_that_such_curves_tell_less():
    rule = taught()
    assert judged(rule, mine(), 0.7) is not None  # it is expected to end at 82 %, and the best is at 83.2 %
    assert rule.prospect(99) < 0.01
    assert rule.prospect(98) == 0.0  # nothing is known of it
    for number in range(12, 24):  # larger networks, which are no bar to it
        done(rule, number, 0.7, 0.9 if number % 2 else 0.7, macs=200)
    assert rule.prospect(99) > 0.25
    assert RungRule(("host",)).prospect(99) == NeverStop().prospect(99) == 0.0


def test_what_a_sampler_learns_of_an_ended_trial_is_an_accuracy():
    rule = taught()
    assert judged(rule, mine(), 0.6) is not None
    assert expected_score(rule, mine(), 0.6) == pytest.approx(0.76, abs=0.01)
    assert expected_score(rule, mine(100), 0.6) == 0.6  # nothing is known of it, so nothing can be predicted
    assert expected_score(rule, mine(100), math.nan) is None
    judged(rule, mine(101), 1.5)
    assert expected_score(rule, mine(101), 1.5) == 1.0
