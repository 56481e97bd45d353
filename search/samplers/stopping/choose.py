"""Which stopping rule a study has, by its settings."""

from __future__ import annotations

from search.samplers.stopping.base import NeverStop, StoppingRule
from search.samplers.stopping.curves import CHANCES, CurveRule
from search.samplers.stopping.rungs import RungRule
from search.settings import StudySettings


def make_rule(settings: StudySettings) -> StoppingRule:
    """Return the rule that `search.stopping` names."""
    name, minimised = settings.search.stopping, settings.latency.minimised
    if name == "none":
        return NeverStop()
    objective = settings.study.objective
    return RungRule(minimised, objective) if name == "rungs" else CurveRule(minimised, CHANCES[name], objective)
