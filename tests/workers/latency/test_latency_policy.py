"""Measurement policies: what their labels promise."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from pydantic import ValidationError

from space.errors import InvalidSettings
from workers.latency import QUICK, STANDARD, MeasurementPolicy, policy_named
from workers.latency.agent.runtimes import RUNTIMES
from workers.latency.agent.serving.protocol import POLICY_LIMITS, POLICY_MAY_BE_NULL
from workers.latency.policy import Runtime


def test_the_named_policies_carry_their_labels():
    assert policy_named("standard") is STANDARD
    assert policy_named("quick") is QUICK
    assert (STANDARD.label, QUICK.label) == ("standard", "quick")
    assert MeasurementPolicy() == STANDARD


def test_an_unknown_policy_is_refused_with_the_names_there_are():
    with pytest.raises(InvalidSettings, match="'standard' or 'quick', but got 'fast'"):
        policy_named("fast")


def test_the_quick_policy_measures_in_as_many_processes_for_less_time(quick_as_shipped: MeasurementPolicy):
    assert quick_as_shipped.processes == STANDARD.processes == 4
    assert quick_as_shipped.warmup_s + quick_as_shipped.run_s == pytest.approx(0.15)
    assert (quick_as_shipped.attempts, STANDARD.attempts) == (2, 3)


@pytest.mark.parametrize(
    "change",
    [{"runs": 39}, {"run_s": 0.9}, {"warmup_runs": 9}, {"warmup_s": 0.4}, {"processes": 3}, {"samples_kept": 10}],
)
def test_a_policy_below_the_standard_can_not_be_labelled_standard(change):
    (name,) = change
    with pytest.raises(ValidationError, match=f"a standard policy needs {name} >="):
        MeasurementPolicy(**change)
    assert MeasurementPolicy(label="quick", **change).label == "quick"


@pytest.mark.parametrize("name", ["anchor_tolerance", "interval_within"])
def test_a_looser_tolerance_can_not_be_labelled_standard(name):
    with pytest.raises(ValidationError, match=rf"{name} <= 0\.0\d, but got 0\.2"):
        MeasurementPolicy(**{name: 0.2})


def test_a_more_thorough_policy_stays_standard():
    assert MeasurementPolicy(runs=1024, run_s=60.0, processes=5, anchor_tolerance=0.01).label == "standard"


def test_the_named_policies_wait_for_no_hot_processor_and_use_onnxruntime():
    assert STANDARD.pause_above_c is QUICK.pause_above_c is None
    assert STANDARD.runtime == QUICK.runtime == "onnxruntime"


def test_a_pause_that_could_never_end_is_refused():
    with pytest.raises(ValidationError, match=r"resume_below_c <= pause_above_c must hold, but got 55\.0 > 50\.0"):
        MeasurementPolicy(pause_above_c=50.0)
    assert MeasurementPolicy(pause_above_c=60.0).label == "standard"


def test_a_runtime_is_one_that_the_agent_has():
    assert set(get_args(Runtime)) == set(RUNTIMES)
    with pytest.raises(ValidationError, match="runtime"):
        MeasurementPolicy(runtime="abacus")


BOUNDS = ("ge", "gt", "le")
CHECKED_ELSEWHERE = {"label", "runtime", "threads"}  # a word, a name, and as many as the device has cores


def test_the_agent_checks_each_number_of_a_policy_by_the_policys_own_limits():
    fields = MeasurementPolicy.model_fields
    assert set(POLICY_LIMITS) == set(fields) - CHECKED_ELSEWHERE
    for name, limits in POLICY_LIMITS.items():
        bounds = {b: getattr(rule, b) for rule in fields[name].metadata for b in BOUNDS if hasattr(rule, b)}
        assert bounds == {"gt" if limits.is_open else "ge": limits.low, "le": limits.high}, name
        kinds = set(get_args(fields[name].annotation) or [fields[name].annotation])
        assert kinds - {type(None)} == {limits.kind}, name
        assert (type(None) in kinds) == (name in POLICY_MAY_BE_NULL), name


def test_a_policy_survives_json_and_its_digest_tells_policies_apart():
    again = MeasurementPolicy.model_validate(json.loads(QUICK.model_dump_json()))
    assert again == QUICK
    assert again.digest() == QUICK.digest() != STANDARD.digest()


def test_an_unknown_key_is_an_error():
    with pytest.raises(ValidationError, match="warmups"):
        MeasurementPolicy.model_validate({"warmups": 3})
