"""Ended trials are weighed at the same moments in a search that was killed and resumed as in one that never was."""

from __future__ import annotations

import pytest

from search.loop.weighing import point
from search.store.rows import TrialRow
from tests.search.loop.test_taking_up import Watching, run_through_kills
from tests.search.tiny_studies import Bench, assert_consistent

AT = 0.3  # where a trial is ended
TRAININGS = 16


class LaterHopes(Watching):
    """Ends two trials of three; has hopes of one when three more have been ended, whether or not any has finished."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: set[int] = set()

    def finish(self, row: TrialRow) -> None:
        if row.state == "pruned":
            self.ended.add(row.number)

    def verdict(self, row: TrialRow) -> str | None:
        ends = row.continues is None and row.number % 3 and self.progress.get(row.number, 0.0) >= AT
        return "ended early: for now" if ends else None

    def prospect(self, number: int) -> float:
        later = sum(other > number for other in self.ended)
        return min(0.3 + 0.05 * later, 0.9)


def taken_up(bench: Bench, every: int | None) -> list[tuple[int, int]]:
    """Run a study, killed after so many polls again and again; return who was taken up, and by which trial."""
    kills = run_through_kills(bench, LaterHopes, every)
    assert (kills > 5) == (every is not None)
    assert_consistent(bench)
    return [(row.number, row.continues) for row in bench.rows if row.continues is not None]


@pytest.mark.parametrize("every", [5, 8])
def test_a_search_that_is_killed_takes_up_the_same_trials_at_the_same_moments(make_bench, every: int):
    changes = {"study__trainings": TRAININGS, "search__stopping": "aggressive", "search__sampler": "random"}
    through = taken_up(make_bench(**changes, engine__workers=1), None)
    during = [number for number, _ in through if number < TRAININGS]
    assert during
    assert taken_up(make_bench(**changes, engine__workers=1), every) == through


def test_they_are_weighed_whenever_a_tenth_more_trainings_have_finished():
    points = sorted({point(finished) for finished in range(40)})
    assert points == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 21, 24, 27, 30, 33, 37]
