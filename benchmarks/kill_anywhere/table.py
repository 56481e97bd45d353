"""The table of kills by role and phase, and whether it is full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from benchmarks.kill_anywhere.forms import Cell


def table_lines(table: Counter[tuple[str, str]], cells: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the table's lines: the kills of each role in each phase; a dot where there is no such cell."""
    phases = list(dict.fromkeys(phase for _, phase in cells))
    yield " " * 11 + "".join(f"{phase:>11}" for phase in phases)
    for role in dict.fromkeys(role for role, _ in cells):
        shown = (str(table[(role, phase)]) if (role, phase) in cells else "·" for phase in phases)
        yield f"{role:11}" + "".join(f"{text:>11}" for text in shown)


def shortfalls(kills: int, table: Counter[Cell], cells: Sequence[Cell]) -> list[str]:
    """Return what is missing, in words: kills that were not made, cells that were not hit."""
    made, empty = sum(table.values()), [cell for cell in cells if not table[cell]]
    return [f"{made} kills of {kills}"] * (made < kills) + [f"never hit: {role}, {phase}" for role, phase in empty]
