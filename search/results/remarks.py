"""What makes figures doubtful, in sentences: few images of a class, a class never recognised, no better than chance.

A good top-1 hides each of them. Launch, `pick`, page, report and model card say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.budget import Budget
from search.results.class_figures import class_figures, class_names, names_in
from search.results.paired import chance_of, is_above_chance
from search.results.ranking import rank
from search.store import reader
from search.store.rows import StudyRow, TrialRow
from search.store.vocabulary import EvaluatedSplit, TrialState
from workers.metrics import NAMES, Objective, Predictions
from workers.wording import agreeing, counted, listed, one_line

FEWEST_IMAGES = 20  # of a class, with which a recall is known to about 20 points
MOST_NAMED = 5  # classes in a sentence
NAME_LETTERS = 60  # of a class's name in a sentence


@dataclass(frozen=True)
class Seen:
    """A network's predictions; None of a split that it wasn't evaluated on, or of which they weren't recorded."""

    validation: Predictions | None = None
    test: Predictions | None = None
    remarks: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()  # may lack some

    @property
    def splits(self) -> dict[str, Predictions]:
        """The predictions there are, by the split's name; the test split's first."""
        both = {"test": self.test, "validation": self.validation}
        return {name: predictions for name, predictions in both.items() if predictions is not None}


NOTHING_SEEN = Seen()


def seen_by(engine: sa.Engine, study: StudyRow, row: TrialRow) -> Seen:
    """Return what a trial's network said of the images.

    Raises:
        StudyDamaged: it can't be read.
    """
    validation, test = (reader.class_predictions_of(engine, row, split) for split in EvaluatedSplit)
    remarks = remarks_of_study(study.data_info, validation, row.objective, f"trial {row.number}")
    return Seen(validation, test, tuple(remarks), names_in(study.data_info))


def remarks_on_images(counts: Sequence[int], names: Sequence[str]) -> list[str]:
    """Return what to know about validation images; `counts` are those of each class, none where they aren't known."""
    called = class_names(len(counts), names)
    few = sorted((count, name) for count, name in zip(counts, called, strict=True) if count < FEWEST_IMAGES)
    if not few:
        return []
    classes = f"{counted(len(few), 'class', 'classes')} {agreeing(len(few), 'has', 'have')}"
    them = agreeing(len(few), "it", "them")
    counts_text = listed([f"{one_line(name, NAME_LETTERS)} {count}" for count, name in few], most=MOST_NAMED)
    return [
        f"{classes} fewer than {FEWEST_IMAGES} validation images ({counts_text}), so that what is said of {them} "
        "is little more than a guess; add images, or raise data.validation_fraction."
    ]


def remarks_on_network(network: Predictions, names: Sequence[str], objective: Objective, called: str) -> list[str]:
    """Return what to know about a network, which sentences call `called`; [] where nothing speaks against it."""
    return [*_unrecognised(network, names, called), *_no_better_than_chance(network, names, objective, called)]


def _unrecognised(network: Predictions, names: Sequence[str], called: str) -> Iterator[str]:
    never = [
        f"{one_line(one.name, NAME_LETTERS)} (0 of {one.images:,})"
        for one in class_figures(network, names)
        if one.recall == 0
    ]
    if never:
        classes = f"{counted(len(never), 'class', 'classes')} {agreeing(len(never), 'is', 'are')}"
        yield f"{classes} never recognised by {called}: {listed(never, most=MOST_NAMED)}."


def _no_better_than_chance(
    network: Predictions, names: Sequence[str], objective: Objective, called: str
) -> Iterator[str]:
    if not len(network) or is_above_chance(network, objective):
        return
    score, chance = network.metrics()[objective] or 0.0, chance_of(network, objective)
    most = class_names(len(network.images_of_class), names)[int(network.images_of_class.argmax())]
    way = (
        f"naming {one_line(most, NAME_LETTERS)!r} for every image"
        if objective == "top1"
        else "guessing without looking"
    )
    yield (
        f"{called} is not above chance: its {NAMES[objective]} is {score:.2%}, and {way} gives {chance:.2%}, as good "
        "within noise; see whether the trainings learn at all."
    )


def remarks_of_study(
    data_info: Mapping[str, Any] | None, network: Predictions | None, objective: Objective, called: str
) -> list[str]:
    """Return what to know about a study's images and one of its networks, of which the predictions may be unknown."""
    info = data_info or {}
    names = names_in(info)
    counts = info.get("validation_counts") or (() if network is None else network.images_of_class.tolist())
    remarks = remarks_on_images(counts, names)
    return remarks if network is None else [*remarks, *remarks_on_network(network, names, objective, called)]


def remarks_on_best(engine: sa.Engine, study_name: str, budget: Budget) -> tuple[str, ...]:
    """Return what to know about a study's validation images and its best network inside a budget."""
    study = reader.find_study(engine, study_name)
    ranked = rank(reader.read_trials(engine, study.id, states=[TrialState.DONE]), budget)
    if ranked:
        return seen_by(engine, study, ranked[0]).remarks
    return tuple(remarks_of_study(study.data_info, None, "top1", ""))
