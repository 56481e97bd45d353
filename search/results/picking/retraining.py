"""Training a picked network again, on the validation images as well: a study of one training beside its study.

The choice rests on the validation images, so once it is made they may be learned from too. The retrained network is a
trial of its own with curve, files and log, in a study that names the trial which it retrains; a launch that was
interrupted goes on where it was. Only the retrained network is tested: the first one isn't shipped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from search.results.picking.picked import Picked, Winner
from search.settings import BudgetSettings, RetentionSettings, SearchSettings, StudySettings
from search.store.rows import StudyRow, TrialRow
from space.config import CondenseNetConfig
from space.space_settings import settings_of_network
from workers.metrics import NAMES
from workers.settings import TrainingSettings

LONGEST_NAME = 60  # characters of the study's own


def retraining_settings(
    study: StudyRow, row: TrialRow, settings: StudySettings, epochs: int | None, from_weights: bool
) -> StudySettings:
    """Return the settings of the study that retrains a trial's network; equal wishes have equal names.

    Args:
        study: the trial's study.
        row: the trial.
        settings: the study's, as they are stored, or as if a device that it was repriced on were its only one.
        epochs: how many in place of the trial's; None = as many.
        from_weights: whether it begins with the trial's weights, as far as they fit, instead of random ones.
    """
    training = TrainingSettings.model_validate(row.training)
    if epochs is not None:
        training = training.model_copy(update={"epochs": epochs})
    training = training.model_copy(
        update={"start": f"trial:{study.name}/{row.number}" if from_weights else training.start.partition("#")[0]}
    )
    how = ("" if epochs is None else f"-{epochs}-epochs") + "-from-weights" * from_weights
    name = f"{study.name[:LONGEST_NAME].strip()}-retrained-{row.number}{how}"
    own = {"name": name, "trainings": 1, "seed": row.seed, "retrains": f"{study.name}/{row.number}"[:200]}
    parts: dict[str, Any] = {
        "study": settings.study.model_copy(update=own),
        "data": settings.data.model_copy(update={"with_validation": True}),
        "space": space_of(row.config, settings.space),
        "training": training.model_dump(mode="json"),
        "budget": BudgetSettings(),  # it is held to the budget once it is trained
        "search": SearchSettings(startup=1),
        "retention": RetentionSettings(),
    }
    return settings.model_copy(update=parts)


def space_of(config: CondenseNetConfig, space: dict[str, Any]) -> dict[str, Any]:
    """Return the search space that holds one network alone, beside what a study's own says of images and classes."""
    of_images: dict[str, Any] = {name: space[name] for name in ("input_shape", "num_classes") if name in space}
    return {**of_images, **settings_of_network(config)}


def told_of_choice(picked: Picked, winner: Winner, study: StudyRow) -> Picked:
    """Return a picked retrained network with what was decided when it was chosen, in another study."""
    row = winner.row
    score = "" if row.score is None else f", whose {NAMES[row.objective]} was {row.score:.2%} on the validation images"
    how = f"trained again on training and validation images: trial {row.number} of {study.name}{score}"
    return replace(
        picked,
        candidates=len(winner.ranked),
        passed_over=winner.passed_over,
        retrains=f"{study.name}/{row.number}",
        reasons=(*winner.reasons, how),
        as_good=(),
    )
