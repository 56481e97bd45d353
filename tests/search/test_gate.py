"""The gate lets through exactly what `pick` may choose."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.budget import Budget, excess, refusal
from space.cost import Cost
from space.errors import InvalidSettings
from tests.search.tiny_studies import tiny_settings
from workers.latency.record import LatencyRecord

COST = Cost(macs=1000, params=200, paper_flops=0, conv_macs=0, relu_elements=0, avgpool_ops=0)
LATENCY = LatencyRecord("measured", "standard", "host:x", "onnxruntime", "1", 1, 2.0, 2.2, 1.9, 2.5, True)


def test_without_a_limit_everything_passes():
    assert refusal(Budget(), COST.macs, COST.params, LATENCY) is None
    assert str(Budget()) == "no limit"


@pytest.mark.parametrize(
    ("budget", "passes"),
    [
        (Budget(max_macs=1000), True),
        (Budget(max_macs=999), False),
        (Budget(max_params=200), True),
        (Budget(max_params=199), False),
        (Budget(max_latency_ms=2.5), True),
        (Budget(max_latency_ms=2.49), False),  # the median of 2.0 is inside, the interval's upper end is not
        (Budget(max_latency_ms=1.0), False),
        (Budget(2.0, latency_statistic="median"), True),
        (Budget(1.99, latency_statistic="median"), False),
        (Budget(2.2, latency_statistic="p90"), True),
        (Budget(2.19, latency_statistic="p90"), False),
        (Budget(2.5, 1000, 200), True),
        (Budget(2.5, 1000, 199), False),
    ],
)
def test_a_candidate_on_a_limit_passes_and_one_above_is_refused(budget: Budget, passes: bool):
    assert (refusal(budget, COST.macs, COST.params, LATENCY) is None) == passes


def test_what_has_no_90th_percentile_keeps_no_limit_on_it():
    estimate, by_p90 = replace(LATENCY, kind="estimated", p90_ms=None), Budget(9.0, latency_statistic="p90")
    assert refusal(by_p90, 1, 1, estimate) == "latency 2 ms has no p90 to hold to 9 ms, estimated"
    assert excess(replace(by_p90, max_latency_ms=1.25), 1, 1, estimate)["latency_ms"] == pytest.approx(1.0)
    assert str(by_p90) == "9 ms (p90)"


def test_the_reason_gives_the_value_the_limit_and_the_kind_of_latency():
    assert refusal(Budget(max_macs=900), COST.macs, COST.params, None) == "1,000 macs > 900"
    assert refusal(Budget(max_params=1), COST.macs, COST.params, None) == "200 params > 1"
    estimated = replace(LATENCY, kind="estimated")
    assert (
        refusal(Budget(max_latency_ms=2.1), COST.macs, COST.params, estimated)
        == "latency 2 ms (up to 2.5) > 2.1 ms, estimated"
    )


def test_an_unmeasured_candidate_is_judged_by_what_is_known():
    assert refusal(Budget(max_latency_ms=0.001), COST.macs, COST.params, None) is None


def test_memory_is_a_limit_like_the_others_where_it_is_set():
    budget = Budget.of_settings({"max_ram_mb": 60}, ["host"])
    heavy, light, silent = (replace(LATENCY, peak_memory_mb=mb) for mb in (75.0, 45.0, None))
    assert refusal(budget, COST.macs, COST.params, heavy) == "75.0 MB memory > 60 MB"
    assert refusal(budget, COST.macs, COST.params, light) is None
    found = [excess(budget, COST.macs, COST.params, one)["ram_mb"] for one in (heavy, light, silent, None)]
    assert found == pytest.approx([0.25, -0.25, 0.0, 0.0])
    assert excess(budget, COST.macs, COST.params, light, [replace(heavy, target="pi5")])["ram_mb"] == 0.25
    assert "ram_mb" not in excess(Budget(), COST.macs, COST.params, heavy)  # as studies without the limit recorded it
    assert "max_ram_mb" not in tiny_settings().model_dump(mode="json")["budget"]
    with pytest.raises(InvalidSettings, match="'virtual:raspberry-pi-5' doesn't"):
        tiny_settings(budget__max_ram_mb=60, latency__devices=["virtual:raspberry-pi-5"])


limits = st.none() | st.floats(1e-3, 1e9)


@given(ms=limits, macs=limits, params=limits, high=st.none() | st.floats(1e-3, 1e6))
def test_the_constraints_agree_with_the_gate(ms, macs, params, high):
    budget = Budget(ms, macs, params)
    latency = None if high is None else replace(LATENCY, interval_high_ms=high)
    found = excess(budget, COST.macs, COST.params, latency)
    assert found.keys() == {"latency_ms", "macs", "params"}  # the same set for every trial
    refused = refusal(budget, COST.macs, COST.params, latency) is not None
    if refused:
        assert max(found.values()) >= 0.0
    else:
        assert max(found.values()) <= 0.0
