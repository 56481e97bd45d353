"""A candidate that a disturbed measurement refuses is measured again before the refusal is final."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from search.pricing.pricer import AGAIN_MOST, Price, Pricer, Target
from tests.search.tiny_studies import INSIDE, OUTSIDE, CountingProbe
from workers.latency.measurement import Measurement, never

LIMIT_MS = 3.0


class Busy(CountingProbe):
    """A machine on which other work slows each of the first measurements down, by a factor for each."""

    def __init__(self, factors: Sequence[float], ms: float = 2.0, says_so: bool = True) -> None:
        super().__init__(lambda path: ms)
        self.factors, self.says_so = list(factors), says_so

    def measure(self, models, stop=never):
        factor = self.factors[len(self.batches)] if len(self.batches) < len(self.factors) else 1.0
        times = ("median_ms", "interval_low_ms", "interval_high_ms")
        return [
            replace(
                one, steady=factor == 1 or not self.says_so, **{name: getattr(one, name) * factor for name in times}
            )
            for one in super().measure(models, stop)
        ]


def priced(folder: Path, probe: CountingProbe) -> list[Price]:
    pricer = Pricer([Target("host", probe, LIMIT_MS, local=True)], folder)
    try:
        pricer.start([INSIDE, OUTSIDE])
        prices = pricer.collect(60.0)
    finally:
        pricer.close()
    assert prices is not None
    return [price["host"] for price in prices]


def test_a_candidate_that_other_work_made_too_slow_is_let_through_once_it_was_measured_undisturbed(tmp_path):
    probe = Busy([4.0])
    for price in priced(tmp_path, probe):
        assert isinstance(price, Measurement)
        assert price.steady
        assert price.interval_high_ms <= LIMIT_MS
        assert price.conditions["times"] == 2
    assert probe.batches == [2, 2]


def test_on_a_machine_that_is_always_busy_the_fastest_measurement_counts_and_there_is_an_end(tmp_path):
    probe = Busy([6.0, 3.0, 5.0, 1.0])
    for price in priced(tmp_path, probe):
        assert isinstance(price, Measurement)
        assert not price.steady
        assert price.median_ms == pytest.approx(6.0, rel=0.02)
    assert len(probe.batches) == 1 + AGAIN_MOST


def test_an_undisturbed_refusal_is_final_and_a_disturbed_candidate_inside_the_limit_is_not_measured_again(tmp_path):
    for probe in (Busy([2.0] * 9, says_so=False), Busy([1.2] * 9)):
        priced(tmp_path, probe)
        assert probe.batches == [2]
