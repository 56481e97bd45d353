"""What else ran while a model was timed, and whether that disturbed it.

- A run is *set aside* when its wall time is longer than the CPU time that this process had in it: it was interrupted.
- `Counters` are what the system counts meanwhile: the time a hypervisor took, how busy the cores are that share units
  or caches with the measuring one, how often a CPU quota stopped the process. What a system doesn't count is None, and
  nothing is concluded from it.
- `disturbed` decides, from these figures alone; every limit it uses is at the top of this file.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.latency.agent.sensors import ROOT, caches_with, read_text, siblings

RUN_LOSES_MOST = 0.01  # of a run's wall time may be someone else's; a median of such runs is right within that
CLOCK_NOISE_NS = 3_000  # of two clocks that are read one after the other
LOOP_LOSES_MOST = 0.05  # of all runs together: more, and what was running has emptied the caches as well
SET_ASIDE_MOST = 0.2  # of the runs
STEAL_MOST = 0.02  # of the time, taken by a hypervisor
SIBLING_MOST = 0.1  # busy share of the cores that have the same execution units
NEIGHBOURS_MOST = 0.25  # busy share of the cores that share a cache
TICKS_LEAST = 3  # of the system's accounting, so that one that is counted by chance decides nothing


@dataclass(frozen=True)
class Counters:
    """What the system has counted so far; differences of two say what happened between them."""

    switches: int | None = None  # times that the process was taken off its core although it wanted to go on
    waited_ns: int | None = None  # how long its threads were ready and had no core
    quota_stops: int | None = None  # periods in which a CPU quota stopped the control group (or one above it)
    cores: Mapping[int, tuple[int, int, int]] | None = None  # by core: ticks busy, stolen and in all


def read_counters(cores: Collection[int], root: Path = ROOT) -> Counters:
    """Return the counters as they are now, those of `cores` among them."""
    return Counters(_switches(), _waited_ns(root), _quota_stops(root), _core_ticks(cores, root))


def _switches() -> int | None:
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _waited_ns(root: Path) -> int | None:
    total = None
    for path in root.glob("proc/self/task/*/schedstat"):
        fields = (read_text(path) or "").split()
        if len(fields) == 3 and fields[1].isdigit():
            total = (total or 0) + int(fields[1])
    return total


def _quota_stops(root: Path) -> int | None:
    """Return `nr_throttled` of this process's CPU control group and those above it, as far as they can be seen."""
    stops = None
    for path in _control_groups(root):
        for line in (read_text(path / "cpu.stat") or "").splitlines():
            name, _, value = line.partition(" ")
            if name == "nr_throttled" and value.strip().isdigit():
                stops = (stops or 0) + int(value)
    return stops


def _control_groups(root: Path) -> list[Path]:
    """Return the folders of this process's CPU control groups, of version 1 and 2, and of those above them.

    In a container the file may name folders that aren't there; the mounted top is then the container's own group.
    """
    folders: dict[Path, None] = {}
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        tops = ("cpu", "cpu,cpuacct", "cpuacct,cpu") if controllers else ("", "unified")
        for top in (root / "sys/fs/cgroup" / name for name in tops):
            folder = top / group.strip("/")
            folders.update((above, None) for above in (folder, *folder.parents) if top in (above, *above.parents))
    return list(folders)


def _core_ticks(cores: Collection[int], root: Path) -> dict[int, tuple[int, int, int]] | None:
    ticks: dict[int, tuple[int, int, int]] = {}
    for line in (read_text(root / "proc/stat") or "").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores and len(fields) >= 4:
            # user nice system idle iowait irq softirq steal; guests' ticks are among those of users
            values = [int(field) for field in fields[:8]] + [0] * (8 - len(fields[:8]))
            idle, steal = values[3] + values[4], values[7]
            ticks[int(name[3:])] = (sum(values) - idle - steal, steal, sum(values))
    return ticks or None


class Watch:
    """Watches the machine while a model runs on `cores`; `finish` says what happened."""

    def __init__(self, cores: Sequence[int], root: Path = ROOT) -> None:
        self._cores, self._root = tuple(cores), root
        self._siblings = {one for core in cores for one in siblings(core, root / "sys/devices/system/cpu")}
        self._siblings -= set(cores)
        self._neighbours = {one for core in cores for one in caches_with(core, root)} - set(cores) - self._siblings
        self._all = {*self._cores, *self._siblings, *self._neighbours}
        self._before = read_counters(self._all, root)
        self._began = time.perf_counter_ns()

    def finish(self) -> dict[str, Any]:
        """Return the JSON-able figures since the beginning, None for each that the system doesn't count."""
        seconds = (time.perf_counter_ns() - self._began) / 1e9
        before, after = self._before, read_counters(self._all, self._root)
        waited_ns = _difference(before.waited_ns, after.waited_ns)
        busy, stolen, every = 0, 1, 2
        return {
            "switches": _difference(before.switches, after.switches),
            "waited": None if waited_ns is None else waited_ns / 1e9 / seconds / len(self._cores),
            "quota_stops": _difference(before.quota_stops, after.quota_stops),
            "stolen": _share(before, after, self._cores, stolen, every),
            "siblings_busy": _share(before, after, self._siblings, busy, every),
            "neighbours_busy": _share(before, after, self._neighbours, busy, every),
        }


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)


def _share(before: Counters, after: Counters, cores: Collection[int], column: int, every: int) -> float | None:
    """Return the share that one column has of all ticks of these cores; 0 of too few ticks, None of none."""
    known = [core for core in cores if core in (before.cores or {}) and core in (after.cores or {})]
    if before.cores is None or after.cores is None or not known:
        return None
    part, whole = (sum(after.cores[core][i] - before.cores[core][i] for core in known) for i in (column, every))
    return 0.0 if part < TICKS_LEAST or whole <= 0 else part / whole


def cpu_clock_step_ns() -> int:
    """Return the smallest step of this process's CPU clock; some systems count it in ticks of milliseconds."""
    until = time.perf_counter_ns() + 30_000_000
    steps: list[int] = []
    last = time.process_time_ns()
    while len(steps) < 5 and time.perf_counter_ns() < until:
        now = time.process_time_ns()
        if now != last:
            steps.append(now - last)
            last = now
    return min(steps) if len(steps) > 1 else 30_000_000


def can_judge(run_ns: float) -> bool:
    """Return whether this process's CPU clock is fine enough to judge single runs of this length."""
    return cpu_clock_step_ns() <= max(CLOCK_NOISE_NS, RUN_LOSES_MOST * run_ns)


def is_set_aside(wall_ns: int, cpu_ns: int) -> bool:
    """Return whether a run was interrupted: someone else had its core for more than `RUN_LOSES_MOST` of its time."""
    return wall_ns - cpu_ns > max(RUN_LOSES_MOST * wall_ns, CLOCK_NOISE_NS)


def disturbed(run: Mapping[str, Any]) -> str | None:
    """Return what disturbed the runs of one model in one process, in words; None if nothing is known to have.

    `run` is a process's entry of a report. It may lack any figure: nothing is concluded from what isn't there.
    """
    lost, runs, aside = run.get("lost"), run.get("runs") or 0, run.get("set_aside") or 0
    shares = (
        ("waited", LOOP_LOSES_MOST, "ready to run but without a core"),
        ("stolen", STEAL_MOST, "off its core for the hypervisor"),
        ("siblings_busy", SIBLING_MOST, "sharing its core's units with other work"),
        ("neighbours_busy", NEIGHBOURS_MOST, "sharing caches with other work"),
    )
    if run.get("throttled"):
        return "the processor was slowed down"
    if run.get("quota_stops"):
        return f"a CPU quota stopped it {run['quota_stops']} times"
    if lost is not None and lost > LOOP_LOSES_MOST:
        return f"others had its core for {lost:.0%} of the time"
    if aside > SET_ASIDE_MOST * (runs + aside):
        return "too many of its runs were interrupted"
    for name, most, words in shares:
        share = run.get(name)
        if share is not None and share > most:
            return f"it was {words} for {share:.0%} of the time"
    return None
