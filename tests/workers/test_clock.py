"""The clocks: one contract, and what a simulated one adds."""

from __future__ import annotations

import time

import pytest

from workers.clock import Clock, SimulatedClock, SystemClock


@pytest.mark.parametrize("clock", [SystemClock(), SimulatedClock()], ids=["system", "simulated"])
def test_sleeping_takes_as_long_as_was_said(clock: Clock):
    now, monotonic = clock.now(), clock.monotonic()
    clock.sleep(0.02)
    assert clock.monotonic() - monotonic >= 0.02 - 1e-9
    assert clock.now() >= now


@pytest.mark.parametrize("clock", [SystemClock(), SimulatedClock()], ids=["system", "simulated"])
def test_a_negative_sleep_is_none_at_all(clock: Clock):
    before = clock.monotonic()
    clock.sleep(-5.0)
    assert clock.monotonic() >= before


def test_a_simulated_day_takes_no_time():
    clock, begun = SimulatedClock(now=100.0), time.monotonic()
    clock.sleep(86_400.0)
    assert (clock.now(), clock.monotonic()) == (86_500.0, 86_400.0)
    assert time.monotonic() - begun < 5.0


def test_setting_the_date_leaves_what_is_monotonic():
    clock = SimulatedClock(now=100.0)
    clock.advance(3.0)
    clock.set_now(50.0)
    assert (clock.now(), clock.monotonic()) == (50.0, 3.0)
