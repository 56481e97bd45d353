"""Stopping rules: which trainings end before their schedule does, because they can't be worth its rest."""

from search.samplers.stopping.base import HOPELESS, NeverStop, StoppingRule, expected_score, score_of_epoch
from search.samplers.stopping.choose import make_rule
from search.samplers.stopping.curves import CurveRule
from search.samplers.stopping.final_accuracy import Prediction
from search.samplers.stopping.rungs import RungRule

__all__ = [
    "HOPELESS",
    "CurveRule",
    "NeverStop",
    "Prediction",
    "RungRule",
    "StoppingRule",
    "expected_score",
    "make_rule",
    "score_of_epoch",
]
