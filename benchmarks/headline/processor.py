"""Processor seconds of this process with its children, and of another process with everything below it (Linux)."""

from __future__ import annotations

import os
import resource
from collections import defaultdict
from pathlib import Path

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Return what this process has spent since it began, with children that have ended and were waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def tree_seconds(root: int) -> float:
    """Return what a process and all that live below it have spent, with what they have waited for; 0 if it is gone."""
    children: dict[int, list[int]] = defaultdict(list)
    spent: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended since
        pid = int(entry.name)
        children[int(fields[1])].append(pid)
        spent[pid] = sum(map(int, fields[11:15])) * _TICK_S  # own and waited-for, user and system
    total, waiting = 0.0, [root]
    while waiting:
        pid = waiting.pop()
        total += spent.get(pid, 0.0)
        waiting += children[pid]
    return total
