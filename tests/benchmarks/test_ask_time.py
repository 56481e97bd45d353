"""The benchmark of asks: samplers are asked after the same trials."""

from __future__ import annotations

import pytest

from benchmarks.ask_time import line, measure


@pytest.mark.parametrize("name", ["price-aware", "tpe"])
def test_a_sampler_is_asked_after_the_same_trials(name: str) -> None:
    found = measure(name, trials=12, asks=2)
    assert (found["sampler"], found["trials"], found["asks"]) == (name, 12, 2)
    assert 0 < found["ask_s"]["median"] <= found["ask_s"]["worst"]
    assert "12 trials" in line(found)
