"""Which reports can be true."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.devices.json_numbers import as_json
from search.devices.plausibility import ANCHOR_MACS, Expected, anchor_ms, doubts
from search.pricing.pricer import ANCHOR
from space.cost import cost_of
from tests.search.tiny_devices import counts_report, wall_report

MODEL = "a" * 64
WALL = Expected(MODEL, "wall", "onnxruntime", 1, macs=1_000_000, elapsed_s=30.0, anchors_ms=(2.0, 2.1))
COUNTS = Expected(MODEL, "counts", "onnxruntime", 1, macs=10_000_000)


def expected(**changes: Any) -> Expected:
    return dataclasses.replace(WALL, **changes)


def test_an_ordinary_report_raises_no_doubt():
    assert doubts(wall_report(MODEL), WALL) == []
    assert doubts(counts_report(MODEL), COUNTS) == []


@pytest.mark.parametrize("value", [-1.0, 0.0, 5e-324, 9e-7, math.nan, math.inf, -math.inf])
def test_an_impossible_time_is_doubted_wherever_it_is(value: float):
    report = wall_report(MODEL)
    process = report["processes"][0]
    late = {**process, "samples_ms": [*process["samples_ms"], value]}
    assert len(doubts({**report, "processes": [process, late]}, WALL)) == 1
    odd = {**process, "anchor_ms": [2.0, value]}
    assert "anchor" in doubts({**report, "processes": [process, odd]}, WALL)[0]


@pytest.mark.parametrize("processes", [[], [{"samples_ms": [], "anchor_ms": [2.0, 2.0]}]])
def test_a_report_without_samples_is_doubted(processes: list[Any]):
    assert doubts(wall_report(MODEL, processes=processes), WALL) == ["a process has no samples"]


def test_a_missing_anchor_is_doubted():
    process = {**wall_report(MODEL)["processes"][0], "anchor_ms": []}
    assert "anchor" in doubts(wall_report(MODEL, processes=[process]), WALL)[0]


def test_samples_longer_than_the_lease_are_doubted_and_a_little_slack_is_not():
    report = wall_report(MODEL, ms=6_000.0)  # 36 s in all
    assert doubts(report, expected(elapsed_s=30.0, macs=None)) == []
    (doubt,) = doubts(report, expected(elapsed_s=20.0, macs=None))
    assert doubt == "its runs add up to 36 s, but the report came 20 s after the lease"
    assert doubts(report, expected(elapsed_s=None, macs=None)) == []  # the clock was set back: no one knows


def thinned(ms: float, runs: int, kept: list[float] | None = None) -> dict[str, Any]:
    """A report of two processes that kept every thousandth of their runs."""
    report = wall_report(MODEL, policy="standard")
    process = {**report["processes"][0], "samples_ms": kept or [ms] * -(-runs // 1000), "runs": runs, "stride": 1000}
    return {**report, "processes": [process, process]}


def test_the_runs_that_were_not_kept_count_towards_the_time_too():
    assert doubts(thinned(1.0, 10_000), expected(elapsed_s=20.0)) == []
    (doubt,) = doubts(thinned(1.0, 10_000), expected(elapsed_s=10.0))
    assert doubt == "its runs add up to 20 s, but the report came 10 s after the lease"


def test_one_pause_that_was_kept_does_not_stand_for_the_runs_that_were_not():
    assert doubts(thinned(0.1, 10_000, kept=[*[0.1] * 9, 500.0]), expected(elapsed_s=5.0)) == []


STANDARD = {"label": "standard", "processes": 2, "runs": 40, "run_s": 1.0, "anchor_tolerance": 0.05}


@pytest.mark.parametrize(("true_ms", "runs"), [(0.05, 20_000), (2.0, 500), (24.0, 42)])
def test_times_multiplied_by_a_thousand_are_doubted_however_late_they_come(true_ms: float, runs: int):
    late = expected(elapsed_s=1e6, macs=None, policy=STANDARD)
    assert doubts(thinned(true_ms, runs), late) == []
    (doubt,) = doubts(thinned(true_ms * 1000, runs), late)
    assert doubt.endswith("but from 40 on it ends after 1.0 s")


@pytest.mark.parametrize("macs", [4_000_000, 400_000_000])
def test_a_time_out_of_proportion_to_the_anchors_is_doubted_however_late_it_comes(macs: int):
    true_ms = 2.0 * max(1.0, macs / ANCHOR_MACS)  # as fast as the anchor, which took 2 ms
    late = expected(elapsed_s=1e6, macs=macs)
    assert doubts(wall_report(MODEL, ms=true_ms * 15), late) == []
    (doubt,) = doubts(wall_report(MODEL, ms=true_ms * 1000), late)
    assert "out of all proportion" in doubt


def test_a_clock_a_thousand_times_too_fast_is_seen_by_the_first_report_of_a_queue():
    first = expected(anchors_ms=(), elapsed_s=1e6)
    assert doubts(wall_report(MODEL, anchor_ms=300.0), first) == []
    (doubt,) = doubts(wall_report(MODEL, anchor_ms=1_000.0), first)
    assert doubt.startswith("the anchor took 1000 ms")


def test_the_anchors_macs_are_those_of_the_network_that_agents_get():
    assert cost_of(ANCHOR).macs == ANCHOR_MACS


@pytest.mark.parametrize(("macs", "threads", "doubted"), [(5e9, 1, False), (5.1e9, 1, True), (5.1e9, 2, False)])
def test_a_rate_that_no_core_reaches_is_doubted(macs: float, threads: int, doubted: bool):
    report = wall_report(MODEL, ms=5.0, threads=threads)
    assert bool(doubts(report, expected(macs=int(macs), threads=threads))) is doubted


def test_without_macs_no_rate_is_doubted():
    assert doubts(wall_report(MODEL, ms=1e-5), expected(macs=None)) == []


@pytest.mark.parametrize(("ms", "doubted"), [(2.05, False), (40.0, False), (42.0, True), (0.11, False), (0.1, True)])
def test_an_anchor_twenty_times_off_the_queues_is_doubted(ms: float, doubted: bool):
    assert bool(doubts(wall_report(MODEL, anchor_ms=ms), WALL)) is doubted
    assert doubts(wall_report(MODEL, anchor_ms=ms), expected(anchors_ms=())) == []


@pytest.mark.parametrize(
    ("name", "value"), [("sha256", "b" * 64), ("runtime", "ncnn"), ("threads", 2), ("mode", "counts")]
)
def test_a_report_on_another_job_is_doubted(name: str, value: Any):
    (doubt,) = doubts(wall_report(MODEL, **{name: value}), WALL)
    assert doubt.startswith(f"{name} is {value!r}, asked for was ")


def test_times_where_counts_were_asked_for_are_doubted_and_the_other_way_round():
    assert doubts(wall_report(MODEL), COUNTS)
    assert doubts(counts_report(MODEL), WALL)


@pytest.mark.parametrize(
    "counts",
    [
        [],
        [{}],
        [{"all": 0}],
        [{"all": math.nan}],
        [{"all": 1e9, "vfma": -1}],
        [{"all": 1e9, "vfma": math.inf}],
        [{"all": 1e9, "vfma": 2e9}],
        [{"all": 100_000}],  # for ten million macs
    ],
)
def test_impossible_counts_are_doubted(counts: list[dict[str, float]]):
    assert doubts(counts_report(MODEL, counts=counts), COUNTS)


def test_the_anchors_time_is_the_median_over_all_processes():
    assert anchor_ms([{"anchor_ms": [1.0, 2.0]}, {"anchor_ms": [3.0, 9.0]}]) == 2.5
    assert anchor_ms([]) is None
    assert anchor_ms([{"anchor_ms": [1.0, math.nan]}]) is None


NUMBERS = st.floats() | st.floats(0, 1e-300) | st.floats(1e-3, 1e3)  # subnormal ones: a division by one overflows


@given(st.lists(st.tuples(st.lists(NUMBERS, max_size=4), st.lists(NUMBERS, max_size=2)), max_size=3))
def test_a_report_without_doubts_has_only_finite_positive_times(parts: list[tuple[list[float], list[float]]]):
    processes = [{"samples_ms": samples, "anchor_ms": anchor} for samples, anchor in parts]
    report = wall_report(MODEL, processes=processes)
    if not doubts(report, expected(elapsed_s=None, anchors_ms=())):
        times = [ms for samples, anchor in parts for ms in (*samples, *anchor)]
        assert times
        assert all(1e-6 <= ms < math.inf for ms in times)
    as_json(report)  # the database takes it either way


def test_json_text_holds_words_for_numbers_it_does_not_know():
    assert as_json({"a": [math.nan, (math.inf, -math.inf)], "b": 1.5}) == '{"a": ["nan", ["inf", "-inf"]], "b": 1.5}'


POLICY = {"label": "standard", "processes": 2, "runs": 3, "anchor_tolerance": 0.05}


def test_a_few_samples_do_not_pass_for_the_measurement_that_was_requested():
    requested = expected(policy=POLICY)
    whole = wall_report(MODEL, policy="standard")
    assert doubts(whole, requested) == []
    one = whole["processes"][0]
    assert "1 process, asked for were 2" in doubts({**whole, "processes": [one]}, requested)[0]
    short = {**one, "samples_ms": one["samples_ms"][:1]}
    assert "1 sample of 3 runs" in doubts({**whole, "processes": [one, short]}, requested)[0]
    hasty = {**short, "runs": 1}
    assert "a process of 1 run, asked for were 3" in doubts({**whole, "processes": [one, hasty]}, requested)[0]
    assert "asked for was 'standard'" in doubts({**whole, "policy": "standard-plus"}, requested)[0]


@pytest.mark.parametrize(("ms", "doubted"), [(40.0, False), (2.0, False), (0.04, True)])
def test_a_clock_a_thousand_times_too_slow_is_seen_by_the_first_report_of_a_queue(ms: float, doubted: bool):
    """Three runs are to take at least 0.1 s. The machine may have paused between them, but not for nearly all of it."""
    first = expected(policy={**POLICY, "run_s": 0.1}, macs=None, anchors_ms=())
    found = doubts(wall_report(MODEL, ms=ms, policy="standard"), first)
    assert any("asked for were at least 0.1 s" in doubt for doubt in found) is doubted


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"samples_ms": [6.0, 6.0, 6.0]}, "its processes differ by 20.0% (at most 5%)"),
        ({"lost": 0.5}, "a process was disturbed: others had its core for 50% of the time"),
        ({"quota_stops": 2}, "a process was disturbed: a CPU quota stopped it 2 times"),
    ],
)
def test_a_disturbed_report_that_is_called_steady_is_doubted_and_one_that_is_not_is_believed(change, reason):
    first, second = wall_report(MODEL)["processes"]
    for steady, doubted in ((True, [f"called steady, but {reason}"]), (False, [])):
        changed = {"processes": [first, {**second, **change}], "steady": steady, "policy": "standard"}
        report = wall_report(MODEL, **changed)
        assert doubts(report, expected(policy={**POLICY, "anchor_tolerance": 0.05}, macs=None)) == doubted


def test_a_pause_between_the_runs_of_one_process_is_nothing_to_doubt():
    report = wall_report(MODEL, ms=40.0, policy="standard", steady=False)
    paused = wall_report(MODEL, ms=0.04)["processes"][0]
    report = {**report, "processes": [report["processes"][0], paused]}
    assert doubts(report, expected(policy={**POLICY, "run_s": 0.1}, macs=None)) == []


@pytest.mark.parametrize("drift", [math.nan, math.inf, -0.01])
def test_an_impossible_drift_is_doubted(drift: float):
    assert "drift" in doubts(wall_report(MODEL, anchor_drift=drift), WALL)[0]


def test_a_result_called_steady_whose_own_anchor_moved_is_doubted():
    report = wall_report(MODEL, policy="standard")
    moved = {**report["processes"][0], "anchor_ms": [2.0, 2.5]}
    report = {**report, "processes": [report["processes"][0], moved]}
    assert "its anchor moved by 25.0%" in doubts(report, expected(policy=POLICY))[0]
    assert doubts({**report, "steady": False}, expected(policy=POLICY)) == []
