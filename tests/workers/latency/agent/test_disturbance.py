"""What disturbs a measurement: which runs are set aside, what the system counts, and what is concluded from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers.latency.agent.disturbance import (
    CLOCK_NOISE_NS,
    Watch,
    cpu_clock_step_ns,
    disturbed,
    is_set_aside,
    read_counters,
)
from workers.latency.agent.sensors import caches_with, usable_cores
from workers.latency.agent.timing import REPEATED_MOST, _Runs

QUIET = {
    "runs": 40,
    "set_aside": 1,
    "lost": 0.002,
    "switches": 2,
    "waited": 0.001,
    "quota_stops": 0,
    "stolen": 0.0,
    "siblings_busy": 0.02,
    "neighbours_busy": 0.1,
    "throttled": False,
}


# ---- the decision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lost": 0.5}, "others had its core for 50%"),
        ({"set_aside": 30}, "too many of its runs were interrupted"),
        ({"waited": 0.2}, "ready to run but without a core for 20%"),
        ({"quota_stops": 3}, "a CPU quota stopped it 3 times"),
        ({"stolen": 0.1}, "off its core for the hypervisor for 10%"),
        ({"siblings_busy": 0.9}, "sharing its core's units with other work for 90%"),
        ({"neighbours_busy": 1.0}, "sharing caches with other work for 100%"),
        ({"throttled": True}, "slowed down"),
    ],
)
def test_each_kind_of_disturbance_is_one_by_itself_and_is_named(change, words):
    assert disturbed(QUIET) is None
    assert words in (disturbed({**QUIET, **change}) or "")


def test_nothing_is_concluded_from_what_a_system_does_not_count():
    assert disturbed({"runs": 40}) is None
    assert disturbed(dict.fromkeys(QUIET)) is None
    assert disturbed({**dict.fromkeys(QUIET), "lost": 0.3}) is not None


def test_a_run_is_set_aside_when_someone_else_had_more_than_a_hundredth_of_it():
    assert not is_set_aside(10_000_000, 9_950_000)
    assert is_set_aside(10_000_000, 9_800_000)
    assert not is_set_aside(50_000, 50_000 - CLOCK_NOISE_NS)  # a short run: the clocks' own noise
    assert not is_set_aside(50_000, 51_000)


# ---- the loop -----------------------------------------------------------------------------------------------


def work(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_interrupted_runs_are_set_aside_and_repeated():
    turns = iter(range(10_000))
    runs = _Runs()
    # A run that sleeps is off its core for a while, as one that is pre-empted.
    runs.repeat(lambda: time.sleep(0.003) if next(turns) % 3 == 0 else None, runs=20, seconds=0.0, judge=True)
    entry = runs.entry(20, 1000, judge=True)
    assert entry["set_aside"] >= 9
    assert entry["runs"] == len(entry["samples_ms"]) == len(entry["cpu_ms"]) >= 20
    assert max(entry["samples_ms"]) < 3
    assert entry["lost"] > 0.5


def test_where_every_run_is_interrupted_repeating_ends_and_all_are_kept():
    runs = _Runs()
    runs.repeat(lambda: time.sleep(0.002), runs=10, seconds=0.0, judge=True)
    entry = runs.entry(10, 1000, judge=True)
    assert entry["runs"] == len(entry["samples_ms"]) == entry["set_aside"] == REPEATED_MOST * 10
    assert disturbed(entry) is not None


def test_without_a_cpu_clock_no_run_is_set_aside_and_nothing_is_said_of_lost_time():
    runs = _Runs()
    runs.repeat(lambda: time.sleep(0.001), runs=5, seconds=0.0, judge=False)
    entry = runs.entry(5, 1000, judge=False)
    assert (entry["runs"], entry["set_aside"], entry["lost"]) == (5, None, None)
    assert disturbed(entry) is None


def test_runs_are_thinned_out_evenly():
    runs = _Runs()
    runs.repeat(lambda: None, runs=100, seconds=0.0, judge=False)
    entry = runs.entry(100, 30, judge=False)
    assert (entry["runs"], entry["stride"], len(entry["samples_ms"])) == (100, 4, 25)


# ---- the counters -------------------------------------------------------------------------------------------


def machine(root: Path, *, ticks: int, stops: int) -> Path:
    """A machine of four cores whose first two share a cache, with a CPU quota in both versions of control groups."""
    cpus = root / "sys/devices/system/cpu"
    for core in range(4):
        (cpus / f"cpu{core}/topology").mkdir(parents=True, exist_ok=True)
        (cpus / f"cpu{core}/topology/thread_siblings_list").write_text(f"{core}\n")
        for index, (level, shared) in enumerate(((1, f"{core}"), (3, "0-1" if core < 2 else "2-3"))):
            folder = cpus / f"cpu{core}/cache/index{index}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "level").write_text(f"{level}\n")
            (folder / "shared_cpu_list").write_text(f"{shared}\n")
    (root / "proc/self/task/1").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/task/1/schedstat").write_text(f"1000 {ticks * 5_000_000} 3\n")
    stat = [
        f"cpu0 {ticks} 0 0 {900 + ticks} 0 0 0 0",
        f"cpu1 0 0 {ticks} 0 0 0 0 {ticks}",
        f"cpu2 {ticks} 0 0 0",
        "intr",
    ]
    (root / "proc/stat").write_text("\n".join(stat) + "\n")
    (root / "proc/self/cgroup").write_text("3:cpu,cpuacct:/a/b\n0::/c\n")
    for folder in ("cpu,cpuacct/a/b", "cpu,cpuacct/a", "c"):
        (root / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / folder / "cpu.stat").write_text(f"nr_periods 9\nnr_throttled {stops}\n")
    return root


def test_a_watch_says_what_happened_between_two_readings(tmp_path):
    watch = Watch([1], machine(tmp_path, ticks=0, stops=1))
    machine(tmp_path, ticks=40, stops=3)
    happened = watch.finish()
    assert happened["quota_stops"] == 3 * (3 - 1)  # its own group, the one above it, and that of version 2
    assert happened["neighbours_busy"] == pytest.approx(0.5)
    assert happened["siblings_busy"] is None  # it has none
    assert happened["stolen"] == pytest.approx(0.5)
    assert happened["waited"] > 0


def test_a_system_that_counts_nothing_gives_none_of_each(tmp_path):
    watch = Watch([0], tmp_path)
    happened = watch.finish()
    assert {name for name, value in happened.items() if value is not None} <= {"switches"}
    assert disturbed(happened) is None


def test_one_tick_by_chance_is_no_busy_core(tmp_path):
    watch = Watch([1], machine(tmp_path, ticks=0, stops=0))
    machine(tmp_path, ticks=2, stops=0)
    assert watch.finish()["neighbours_busy"] == 0.0


def test_cores_that_share_the_last_cache_are_read_or_all_are_taken_for_such(tmp_path):
    assert caches_with(1, machine(tmp_path / "known", ticks=0, stops=0)) == {0, 1}
    board = tmp_path / "board/sys/devices/system/cpu"
    board.mkdir(parents=True)
    (board / "online").write_text("0-3\n")
    assert caches_with(2, tmp_path / "board") == {0, 1, 2, 3}
    assert caches_with(2, tmp_path / "nothing") == {2}


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="a system without /proc")
def test_this_machine_counts_what_it_should():
    counters = read_counters(usable_cores())
    assert counters.switches is not None
    assert counters.cores is not None
    assert set(counters.cores) == set(usable_cores())


def test_the_cpu_clock_is_fine_enough_or_known_to_be_coarse():
    assert 0 < cpu_clock_step_ns() <= 30_000_000


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no cores to choose")
def test_a_process_that_wants_the_same_core_all_the_time_is_noticed():
    core = usable_cores()[-1]
    hog = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    allowed = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-S", "-c", hog]) as process:
        try:
            os.sched_setaffinity(0, [core])
            work(0.05)  # until the other one has begun
            runs, watch = _Runs(), Watch([core])
            runs.repeat(lambda: work(0.004), runs=20, seconds=0.2, judge=True)
            entry = {**runs.entry(20, 1000, judge=True), **watch.finish()}
        finally:
            os.sched_setaffinity(0, allowed)
            process.kill()
    assert disturbed(entry) is not None
    assert entry["lost"] > 0.05
    assert entry["switches"] > 0
