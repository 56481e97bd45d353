"""The budget control's table answers as `search.results.ranking` ranks, whatever the budget."""

from __future__ import annotations

import functools
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.budget.answers import more_than
from dashboards.budget.badges import BADGES
from dashboards.budget.recorded import NOTHING_RECORDED, Recorded, read_recorded
from dashboards.budget.table import BudgetTable, limit_text
from dashboards.data.column_reader import read_columns
from dashboards.data.columns import StudyColumns
from search.budget import Budget
from search.results.bundle.preview import latencies_shown
from search.results.picking.verification import Standing, standing_of
from search.results.ranking import rank
from search.store import reader
from search.store.rows import Believed, Proposal
from search.store.vocabulary import ProposalReason
from tests.dashboards.studies import SETTINGS, SMALL, Study, lively
from workers.latency.record import STATISTICS, LatencyPurpose, LatencyStatistic
from workers.metrics import Predictions

NO_LIMIT = Budget()
TWO_DEVICES = {**SETTINGS, "latency": {**SETTINGS["latency"], "devices": ["host", "pi5"]}}
latencies = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 6)), max_size=9)


def table_of(made: Study, budget: Budget = NO_LIMIT, recorded: Recorded = NOTHING_RECORDED) -> BudgetTable:
    return BudgetTable.of(read_columns(made.engine, made.name), budget, lambda numbers: recorded)


@functools.cache
def _without_trials() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Study(Path(folder), settings=TWO_DEVICES).engine.dispose()
        return (Path(folder) / "study.db").read_bytes()


def on_two_devices(folder: Path, trained: list[tuple[int, int, int]]) -> Study:
    """A study of networks without curves: host's tenths of a ms, pi5's ms, hundredths of top-1 above 90 %."""
    (folder / "study.db").write_bytes(_without_trials())
    made = Study.existing(folder, "digits-small")
    for host, pi5, top1 in trained:
        number = made.priced(host / 10)
        made.store.set_running(number, 1)
        made.store.finish(number, "done", top1=0.9 + top1 / 100)
        made.store.add_latency(
            number, made.measurement(number, float(pi5), device="pi5:cortex-a76", target="pi5"), judged=False
        )
    return made


@pytest.mark.slow
@settings(max_examples=40)
@given(
    trained=latencies,
    host=st.integers(0, 10),
    pi5=st.one_of(st.none(), st.integers(0, 10)),
    statistic=st.sampled_from(STATISTICS),
)
def test_best_runner_up_and_number_are_those_of_pick(
    trained: list[tuple[int, int, int]], host: int, pi5: int | None, statistic: LatencyStatistic
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = on_two_devices(Path(folder), trained)
        limit_ms = host / 10 + 0.05
        elsewhere = {} if pi5 is None else {"pi5": pi5 + 0.5}
        table = table_of(made)
        limits: dict[str, float | None] = {"host": limit_ms, **elsewhere}
        budget = Budget(limit_ms, elsewhere_ms=elsewhere, latency_statistic=statistic)
        found, ranked = table.answer(limits, statistic), rank(made.rows(), budget)
        assert found.fits == len(ranked)
        places = (found.best, found.runner_up)
        offered = [None if place is None else table.offers[place].number for place in places]
        assert offered == [row.number for row in ranked[:2]] + [None] * (2 - len(ranked[:2]))
        raised = {name: ms + more_than(ms) for name, ms in {"host": limit_ms, **elsewhere}.items()}
        more = rank(made.rows(), budget.with_limits_ms(raised, "host"))
        gains = bool(more) and (not ranked or (more[0].top1 or 0) > (ranked[0].top1 or 0))
        assert (None if found.more is None else table.offers[found.more].number) == (more[0].number if gains else None)
        made.engine.dispose()


def test_the_table_is_plain_json_with_null_for_what_is_not_known(tmp_path: Path) -> None:
    made = on_two_devices(tmp_path, [(3, 4, 2)])
    made.done(0.2, 0.99)  # not measured on the second device
    text = json.dumps(table_of(made).to_dict(), allow_nan=False)
    assert json.loads(text)["held_ms"]["upper"][1::2].count(None) == 1
    assert table_of(made).answer({"host": 1.0}).fits == 2
    assert table_of(made).answer({"host": 1.0, "pi5": 100.0}).fits == 1


def test_of_many_networks_only_those_are_kept_that_can_be_offered(tmp_path: Path) -> None:
    made = lively(tmp_path)
    columns = read_columns(made.engine, made.name)
    table = BudgetTable.of(columns, Budget())
    assert 0 < len(table.offers) < table.trained
    assert len(table.held_ms["upper"]) == table.trained


def test_limits_on_macs_and_params_hold_for_every_answer(tmp_path: Path) -> None:
    made = lively(tmp_path)
    macs = int(np.median([row.macs for row in made.rows() if row.state == "done"]))
    table = table_of(made, Budget(max_macs=macs))
    assert all(offer.macs <= macs for offer in table.offers)
    assert table.answer({}).fits == sum(row.macs <= macs for row in made.rows() if row.state == "done")
    assert "at most" in table.sentence({"host": 1.0})


@pytest.mark.parametrize(
    ("make", "start"),
    [
        (lambda made: None, "This study has no trials yet."),
        (lambda made: made.infeasible(0.9), "No candidate was inside the budget"),
        (lambda made: made.running(0.2), "No network has finished its training yet"),
        (lambda made: made.failed("the loss became nan"), "No trial led to a trained network"),
    ],
)
def test_without_a_trained_network_the_sentence_says_why(tmp_path: Path, make: Any, start: str) -> None:
    made = Study(tmp_path)
    make(made)
    assert table_of(made).sentence({"host": 0.4}).startswith(start)


def test_the_sentence_answers_which_one_to_deploy(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.store.set_data_info({"dataset": "Digits", "validation_images": 288})
    for ms, top1 in ((10.0, 0.90), (12.0, 0.95), (13.5, 0.96)):
        made.done(ms, top1)
    text = table_of(made).sentence({"host": 13.0})
    assert text.startswith(
        "2 of 3 trained networks fit 13 ms. Best: trial 1 (2-2 growth 8-16 G=4 C=4 B=4), 95.00 % top-1"
    )
    assert "(95 % interval 91.8 % to 97.0 %)" in text
    assert "Runner-up: trial 0" in text
    assert "2 ms more would buy 96.00 %, as good by the intervals: trial 2" in text


def test_beyond_what_was_trained_nothing_is_claimed(tmp_path: Path) -> None:
    made = Study(tmp_path)  # its own limit is 0.4 ms
    for ms, top1 in ((0.1, 0.90), (0.2, 0.96), (0.3, 0.95)):
        made.done(ms, top1)
    for ms in (0.29, 0.5, 0.9):
        made.infeasible(ms)
    table = table_of(made, Budget(0.4))
    end = table.controls[0].trained["upper"].most
    unknown = f"What more would buy is not known: nothing above {end} ms was trained; 2 candidates were refused there."
    assert table.sentence({"host": 0.25}).endswith("0.05 ms more would buy nothing better of what was trained.")
    near = table.sentence({"host": 0.28})  # a little more is beyond the slowest
    assert f"0.06 ms more would buy nothing better of what was trained. {unknown}" in near
    own, above = table.sentence({"host": 0.4}), table.sentence({"host": 0.7})
    assert own.endswith(unknown)
    assert "Best: trial 1" in own
    assert "Best of what was trained: trial 1" in above
    assert above.endswith(unknown)
    assert above.count("buy") == 1
    assert table.sentence({}).endswith(unknown)  # no limit at all, though the study had one
    assert "not known" not in BudgetTable.of(read_columns(made.engine, made.name), Budget()).sentence({"host": 0.15})


def test_what_the_search_predicts_is_called_predicted_and_has_its_interval(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.1, 0.90)
    made.done(0.3, 0.95)
    believed = [
        Believed("a", 1e6, 1e5, {"host": ms}, Proposal(ProposalReason.GAIN, score, 0.01))
        for ms, score in ((0.11, 0.92), (0.12, 0.94), (0.2, 0.99))
    ]
    table = table_of(made, Budget(0.4), Recorded(believed=believed))
    text = table.sentence({"host": 0.105})  # with a fifth more, the second one is inside and the third isn't
    assert text.endswith("Predicted for a network that was not trained: 94.0 % [92.0, 96.0] at about 0.120 ms (a).")
    assert "redicted" not in table_of(made, Budget(0.4)).sentence({"host": 0.105})


def test_the_fastest_and_the_smallest_that_cant_be_told_from_the_best_are_named_with_how_they_were_compared(
    tmp_path: Path,
) -> None:
    made = Study(tmp_path)
    made.store.set_data_info({"dataset": "Digits", "validation_images": 1000})
    large = replace(SMALL, growth=(16, 32))
    for ms, top1, config in ((0.3, 0.950, large), (0.1, 0.948, large), (0.2, 0.945, SMALL), (0.05, 0.80, SMALL)):
        made.done(ms, top1, config)
    labels = np.arange(1000) % 10
    wrong = {0: 50, 1: 52, 2: 55}
    predictions = {
        number: Predictions.of(np.eye(10)[np.where(np.arange(1000) < flaws, (labels + 1) % 10, labels)], labels)
        for number, flaws in wrong.items()
    }
    for recorded, how in ((Recorded(predictions), "within noise"), (NOTHING_RECORDED, "by the intervals")):
        table = table_of(made, Budget(0.4), recorded)
        answer = table.answer({"host": 0.4})
        places = (answer.best, answer.fastest, answer.smallest)
        assert [table.offers[place].number for place in places if place is not None] == [0, 1, 2]
        assert f"The fastest as good {how}: trial 1 (" in table.sentence({"host": 0.4})
        assert f"The smallest as good {how}: trial 2 (" in table.sentence({"host": 0.4})
        taken = table.answer({"host": 0.4}, take="fastest")
        assert taken.chosen == taken.fastest
        assert "Taken: trial 1." in table.sentence({"host": 0.4}, take="fastest")
        assert table.answer({"host": 0.06}, take="fastest").chosen == table.answer({"host": 0.06}).best


def test_the_knee_is_the_network_farthest_above_the_line_from_the_fastest_to_the_best(tmp_path: Path) -> None:
    made = Study(tmp_path)
    for ms, top1 in ((0.1, 0.80), (0.15, 0.92), (0.2, 0.94), (0.38, 0.95)):
        made.done(ms, top1)
    table = table_of(made, Budget(0.4))
    knee = table.answer({"host": 0.4}).knee
    assert knee is not None
    assert table.offers[knee].number == 1  # 0.8 of the way up after 0.18 of the way along
    assert "Knee of the front: trial 1 (" in table.sentence({"host": 0.4})
    assert table.answer({"host": 0.16}).knee is None  # two networks have none


def test_after_pick_the_verification_is_shown_as_the_bundle_has_it_and_rules_out_what_pick_passes_over(
    tmp_path: Path,
) -> None:
    made = Study(tmp_path)
    for ms, top1 in ((0.30, 0.97), (0.20, 0.95)):
        made.done(ms, top1)
    before = table_of(made, Budget(0.4))
    assert "verified" not in before.offers[0].latency
    for ms in (0.33, 0.31, 0.32):
        verified = made.measurement(0, ms, purpose=LatencyPurpose.VERIFY, steady=True)
        made.store.add_latency(0, verified, judged=False)
    made.store.set_test_top1(0, 0.9611)
    columns = read_columns(made.engine, made.name)
    table = BudgetTable.of(columns, Budget(0.4), lambda numbers: read_recorded(made.engine, columns.study, numbers))
    offer, bundled = table.offers[0], latencies_shown(made.engine, made.row(0))["host"]
    assert bundled.verified
    assert offer.figures[0]["median"] == f"{bundled.median_ms:.4g} ms"  # the middle one of the three
    assert float(columns.latencies["host"].median_ms[0]) == bundled.median_ms  # in charts and tables too
    assert offer.badges[:2] == ("verified on device", "tested")
    assert set(offer.badges) <= BADGES.keys()
    assert offer.tested["value"] == "96.11 %"
    history = [one for one in made_latencies(made) if one.verified]
    for limit_ms in np.linspace(0.29, 0.36, 30).tolist():
        best = table.answer({"host": limit_ms}).best
        over = standing_of(history, limit_ms) == Standing.OVER
        ranked = [row.number for row in rank(made.rows(), Budget(limit_ms)) if not (over and row.number == 0)]
        assert (None if best is None else table.offers[best].number) == ranked[0]
        if best == 0 and offer.verified[0]["upper"]["ms"] > limit_ms:
            assert "over the limit, which isn't decided yet" in table.sentence({"host": limit_ms})


def made_latencies(made: Study) -> list[Any]:
    return reader.read_latencies(made.engine, made.row(0).id)


def test_p90_is_offered_only_where_something_was_timed(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9, kind="estimated", policy="counts", p90_ms=None)
    assert set(table_of(made).to_dict()["statistics"]) == {"upper", "median"}
    by_p90 = table_of(made, Budget(0.4, latency_statistic="p90"))  # the study's own choice all the same
    assert by_p90.answer({"host": 0.4}).fits == 0
    made.done(0.3, 0.8)
    assert set(table_of(made).to_dict()["statistics"]) == {"upper", "median", "p90"}


def test_a_budget_that_nothing_fits_says_what_the_fastest_needs(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(10.0, 0.9)
    table = table_of(made)
    text = table.sentence({"host": 1.0})
    assert text.startswith("0 of 1 trained network fit 1 ms. The fastest needs ")
    needed = float(text.partition("needs ")[2].partition(" ms")[0])
    assert table.answer({"host": needed}).fits == 1


@pytest.mark.parametrize(
    ("limit", "more"), [(100.0, 2.0), (10.0, 2.0), (9.0, 2.0), (6.0, 1.0), (0.3, 0.06), (0.001, 2e-4)]
)
def test_a_little_more_is_two_milliseconds_or_about_a_fifth(limit: float, more: float) -> None:
    assert more_than(limit) == pytest.approx(more)


@given(st.floats(1e-4, 1e5))
def test_a_little_more_is_never_nothing_and_never_a_lot(limit: float) -> None:
    assert 0 < more_than(limit) <= max(2.0, 0.31 * limit)
    assert float(limit_text(limit)) == pytest.approx(limit, rel=1e-5)


@pytest.mark.parametrize(("ms", "text"), [(12.0, "12"), (0.35, "0.35"), (1e-5, "0.00001"), (2e6, "2000000")])
def test_limits_are_written_without_needless_digits(ms: float, text: str) -> None:
    assert limit_text(ms) == text


def test_the_controls_reach_from_below_the_fastest_to_above_the_slowest(tmp_path: Path) -> None:
    made = lively(tmp_path)
    columns: StudyColumns = read_columns(made.engine, made.name)
    (control,) = BudgetTable.of(columns, Budget(0.4)).controls
    highs = columns.latencies["host"].high_ms[columns.trained]
    assert control.low_ms < highs.min()
    assert max(highs.max(), 0.4) <= control.high_ms
    assert control.limit_ms == 0.4
    assert 50 <= (control.high_ms - control.low_ms) / control.step_ms <= 2000
    assert not math.isnan(control.step_ms)
