"""What the system says of its processes, as far as the engines don't show it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until
from workers import processes
from workers.processes import (
    KillsForMemory,
    children_of,
    host_and_pid,
    is_alive,
    kills_for_memory,
    lives,
    pid_of,
    process_name,
)


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


def test_a_kill_for_memory_is_reported_once(watch: Watch):
    count = 7
    kills = KillsForMemory(lambda: count)
    assert not kills.any_lately()
    count = 8
    assert kills.any_lately()
    assert not kills.any_lately()


@pytest.mark.parametrize(("since_s", "lately"), [(1.0, True), (60.0, True), (121.0, False), (9e4, False)])
def test_a_kill_for_memory_is_forgotten_after_a_minute_or_two(watch: Watch, since_s: float, lately: bool):
    """The process that polls may have paused for longer, and some large process was killed in that time."""
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


NAME_AND_LOOK = """
import os, sys
from workers.processes import is_alive, process_name
print(process_name(os.getpid()), is_alive(sys.argv[1]))
"""


def test_a_process_is_named_by_host_pid_and_start_and_read_back_from_its_name():
    name = process_name(os.getpid())
    assert host_and_pid(name) == f"{socket.gethostname()}:{os.getpid()}"
    assert pid_of(name) == pid_of(host_and_pid(name)) == os.getpid()
    assert is_alive(name) is is_alive(host_and_pid(name)) is True


def test_a_pid_used_again_is_another_process():
    host_pid, _, start = process_name(os.getpid()).partition("/")[0].partition("@")
    assert is_alive(f"{host_pid}@{int(start) - 1}") is False


def test_a_process_in_another_container_of_the_same_host_name_is_unknown_here():
    mine = process_name(os.getpid())
    name, _, place = mine.partition("/")
    assert len(place) == 8
    assert is_alive(f"{name}/{'0' * 8}") is None
    unshared = subprocess.run(
        ["unshare", "-rpf", "--mount-proc", sys.executable, "-c", NAME_AND_LOOK, mine], capture_output=True, text=True
    )
    if unshared.returncode != 0:
        return  # no namespace can be made here; the names above say the same
    theirs, what_they_know = unshared.stdout.split()
    assert host_and_pid(theirs).partition(":")[0] == socket.gethostname()
    assert is_alive(theirs) is None
    assert what_they_know == "None"


def test_no_one_here_knows_whether_another_hosts_process_is_alive():
    assert is_alive(f"elsewhere.example:{os.getpid()}@1") is None


def test_a_zombie_is_not_alive_and_is_its_parents_child():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        name = process_name(child.pid)
        until(lambda: not lives(child.pid))  # it has ended, and no one has asked how
        assert is_alive(name) is False
        assert child.pid in children_of(os.getpid())
    assert child.pid not in children_of(os.getpid())
