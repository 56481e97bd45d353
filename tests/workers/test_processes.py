"""What the system says of its processes, as far as the engines don't show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers import processes
from workers.processes import KillsForMemory, kills_for_memory


def test_the_systems_kills_for_memory_are_read_where_it_counts_them(tmp_path: Path):
    counter = tmp_path / "vmstat"
    counter.write_text("nr_free_pages 7\noom_kill 4\npgfault 1\n")
    assert kills_for_memory(counter) == 4
    assert kills_for_memory(tmp_path / "absent") == 0


class Watch:
    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(processes, "time", watch)
    return watch


def test_a_kill_for_memory_is_told_once(watch: Watch):
    count = 7
    kills = KillsForMemory(lambda: count)
    assert not kills.any_lately()
    count = 8
    assert kills.any_lately()
    assert not kills.any_lately()


@pytest.mark.parametrize(("since_s", "lately"), [(1.0, True), (60.0, True), (121.0, False), (9e4, False)])
def test_a_kill_for_memory_is_forgotten_after_a_minute_or_two(watch: Watch, since_s: float, lately: bool):
    """Whoever polls may have paused for longer; some large process was killed meanwhile."""
    count = 0
    kills = KillsForMemory(lambda: count)
    for moment in range(300):
        watch.at = float(moment)
        kills.look()
    count = 1
    begun = watch.at
    while watch.at < begun + since_s:
        watch.at += 1.0
        kills.look()
    assert kills.any_lately() is lately
