"""The time that a study still trains, at the speed of its trainings so far."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dashboards.data.time_left import study_left_s
from search.store.rows import AttemptRow, StudyRow, StudyStatus
from search.store.vocabulary import TrialState

RUNNING = AttemptRow(7, 1, "desk:1@2", "desk:3", 900.0, 907.0, 3, None, None, None)


def study(**sections: Any) -> StudyRow:
    settings = {"study": {"trainings": 10}, "engine": {"workers": 2}, **sections}
    return StudyRow(1, "one", 1, 0.0, settings, "a", "b", {}, None, False, "desk:1", 0.0)


def test_a_replay_has_no_time_left_since_its_trainings_take_none():
    simulated = status(4, 60.0, 0.5)
    assert study_left_s(study(), simulated) is not None
    assert study_left_s(study(replay={"table": "condensebench"}), simulated) is None
    report = dataclasses.replace(RUNNING, progress=0.5, seconds=50.0).report  # without images a second
    assert report is not None
    assert report.left_s is None


def status(done: int, mean_train_s: float | None, *progress: float) -> StudyStatus:
    """A study whose running trials are so far, each at 100 s for all of its schedule."""
    running = [dataclasses.replace(RUNNING, progress=part, seconds=100 * part, images_per_s=9.0) for part in progress]
    counts = {TrialState.DONE: done, TrialState.RUNNING: len(progress)}
    return StudyStatus(counts, running=running, mean_train_s=mean_train_s)


@pytest.mark.parametrize(
    ("now", "left_s"),
    [
        (status(0, None), None),  # there is no speed to go by
        (status(0, None, 0.0), None),
        (status(4, 60.0), 6 * 60 / 2),
        (status(4, 60.0, 0.5, 0.25), (50 + 75 + 4 * 60) / 2),
        (status(0, None, 0.5), (50 + 9 * 100) / 2),
        (status(9, 60.0, 0.1), 90.0),  # two workers don't share one training
        (status(12, 60.0), 0.0),  # enqueued configs are trained beyond what the study wants
    ],
)
def test_what_is_left_is_shared_by_the_workers(now: StudyStatus, left_s: float | None) -> None:
    assert study_left_s(study(), now) == (None if left_s is None else pytest.approx(left_s))


def test_settings_that_someone_edited_give_no_time() -> None:
    assert study_left_s(study(study={"trainings": "many"}), status(4, 60.0)) is None
    assert study_left_s(study(engine={}), status(4, 60.0)) == pytest.approx(6 * 60)
