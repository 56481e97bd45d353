"""How long a study still trains, at the speed of its trainings so far."""

from __future__ import annotations

from search.store.replayed import replayed_from
from search.store.rows import StudyRow, StudyStatus


def study_left_s(study: StudyRow, status: StudyStatus) -> float | None:
    """Return the seconds until the study has its trainings; None before there is a speed to go by, and of a replay.

    A training that hasn't begun takes as long as the average one that is done, or else as those that run seem to take,
    and the study's workers share them. Pricing between trainings isn't counted.
    """
    if replayed_from(study.settings) is not None:
        return None  # its trainings' seconds are simulated, and a replay is over in moments
    wanted = (study.settings.get("study") or {}).get("trainings")
    workers = (study.settings.get("engine") or {}).get("workers", 1)
    if not isinstance(wanted, int) or not isinstance(workers, int):
        return None  # settings that someone edited
    reports = [attempt.report for attempt in status.running if attempt.report is not None]
    running_s = [report.left_s for report in reports if report.left_s is not None]
    whole_s = [report.seconds + left_s for report in reports if (left_s := report.left_s) is not None]
    each_s = (
        status.mean_train_s if status.mean_train_s is not None else sum(whole_s) / len(whole_s) if whole_s else None
    )
    if each_s is None:
        return None
    unbegun = max(wanted - status.trainings - len(running_s), 0)
    return max((sum(running_s) + unbegun * each_s) / max(workers, 1), max(running_s, default=0.0))
