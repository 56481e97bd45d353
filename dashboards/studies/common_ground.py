"""What several studies can be compared by: the same images in the same split, and latencies of one kind and device.

The first study is what the others are compared with. Images are the same if their content is, whatever the data set is
called; a study whose images aren't known is compared with none. Latencies may be compared as within a study: if kind,
device, runtime and threads are the same, whatever a study calls the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Axis, LatencyGroup, StudyColumns
from dashboards.data.study_settings import dataset_text
from dashboards.formats import one_line, threads_text
from search.store.replayed import replayed_from, replayed_words
from workers.metrics import NAMES, Objective
from workers.settings import DataSettings

MOST_STUDIES = 4
DIGITS = 6  # of a fingerprint, where people read it
# Settings of [data] that say which of the images are trained on and which accuracies are of.
SPLIT = "images validation_fraction test_fraction split_seed folds fold group with_validation".split()
COUNTS = ("train_images", "validation_images")
COST_NAMES: Mapping[Axis, str] = {"latency": "latency", "macs": "multiply-adds", "params": "parameters"}

GroupKey = tuple[str, str, str, int]  # kind, device, runtime, threads


@dataclass(frozen=True)
class CostView:
    """One cost that accuracies are plotted against."""

    axis: Axis
    group: LatencyGroup | None = None  # of the latencies, as the first study that has them names it

    @property
    def name(self) -> str:
        """What people call it: "latency, measured on host (…)", "multiply-adds"."""
        return COST_NAMES[self.axis] + ("" if self.group is None else f", {one_line(self.group, 160)}")


@dataclass(frozen=True)
class CommonGround:
    """What a choice of studies can be compared by; studies are named by their places in it."""

    objective: Objective  # the score that all of them are compared by
    refused: Mapping[int, str]  # why a study's accuracies can't be compared with the first's
    doubts: tuple[str, ...]  # what should be known of the comparison
    views: tuple[CostView, ...]  # the first is the one to open with
    without: Mapping[CostView, Mapping[int, str]]  # by view, why a study that is not refused has no place in it


def common_ground(studies: Sequence[StudyColumns]) -> CommonGround:
    """Return what these studies can be compared by."""
    first = studies[0]
    refused = {
        place: why
        for place, other in enumerate(studies)
        if place and (why := why_other_images(first.study, other.study))
    }
    kept = [place for place in range(len(studies)) if place not in refused]
    objectives = {studies[place].objective for place in kept}
    objective: Objective = first.objective if len(objectives) == 1 else "top1"
    views, without = _views_of(studies, kept)
    return CommonGround(objective, refused, _doubts_of(studies, kept, objective), views, without)


# ---- images ---------------------------------------------------------------------------------------------


def why_other_images(first: Any, other: Any) -> str:
    """Return why the accuracies of two studies (`StudyRow`s) aren't of the same images, as a clause; "" if they are."""
    ours, theirs = first.data_info or {}, other.data_info or {}
    for study, info in ((first, ours), (other, theirs)):
        if not info.get("fingerprint"):
            why = "it has not read them yet" if study.data_info is None else "that isn't recorded"
            return f"which images {_name(study)} is trained on isn't known: {why}."
    if ours["fingerprint"] != theirs["fingerprint"]:
        firsts = f"{_name(first)} is trained on {_images(first, ours)}"
        return f"its images are others: {_images(other, theirs)}, while {firsts}."
    before, now = _split_of(first.settings), _split_of(other.settings)
    changed = [name for name in SPLIT if before[name] != now[name]]
    if changed:
        said = ", ".join(f"data.{name} {_value(now[name])} instead of {_value(before[name])}" for name in changed)
        return (
            f"its images are those of {_name(first)}, but in another split ({said}), so accuracies are of other images."
        )
    counts = [name for name in COUNTS if ours.get(name) != theirs.get(name)]
    if counts:
        said = ", ".join(f"{theirs.get(name)} {name.replace('_', ' ')} instead of {ours.get(name)}" for name in counts)
        return (
            f"its images are those of {_name(first)}, but in another split ({said}), so accuracies are of other images."
        )
    return ""


def _split_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    part = settings.get("data")
    part = part if isinstance(part, Mapping) else {}
    usual = DataSettings()
    return {name: part.get(name, getattr(usual, name)) for name in SPLIT}


def _value(value: Any) -> str:
    return "none" if value is None else one_line(f"{value:.4g}" if isinstance(value, float) else value, 60)


def _name(study: Any) -> str:
    return one_line(study.name, 100)


def _images(study: Any, info: Mapping[str, Any]) -> str:
    return f"{dataset_text(study, 60)} (content {info['fingerprint'][:DIGITS]}…)"


# ---- latencies ------------------------------------------------------------------------------------------


def key_of(group: LatencyGroup) -> GroupKey:
    """Return what latencies of two studies must share to be compared; the name of a device in a study isn't part."""
    return group.kind, group.device, group.runtime, group.threads


def group_in(columns: StudyColumns, view: CostView) -> int | None:
    """Return the place of a view's group in a study; None where it has no such latencies, or the view has no group."""
    if view.group is None:
        return None
    wanted = key_of(view.group)
    return next((place for place, group in enumerate(columns.latency_groups) if key_of(group) == wanted), None)


def trained_groups(columns: StudyColumns) -> list[LatencyGroup]:
    """Return the groups that trained networks of a study have latencies of; its own first, then the fullest."""
    counts = {
        place: int(np.isfinite(columns.of_group(place).median_ms[columns.trained]).sum())
        for place in range(len(columns.latency_groups))
    }
    places = sorted((place for place in counts if counts[place]), key=lambda place: -counts[place])
    places.sort(key=lambda place: place != columns.default_group)
    return [columns.latency_groups[place] for place in places]


def _views_of(
    studies: Sequence[StudyColumns], kept: Sequence[int]
) -> tuple[tuple[CostView, ...], dict[CostView, Mapping[int, str]]]:
    """Return the costs to choose from, and which studies have no place in each.

    First the latencies that most of the studies share, then macs and params, which all have, then other latencies.
    """
    groups: dict[GroupKey, LatencyGroup] = {}
    holders: dict[GroupKey, list[int]] = {}
    for place in kept:
        for group in trained_groups(studies[place]):
            groups.setdefault(key_of(group), group)
            holders.setdefault(key_of(group), []).append(place)
    order = sorted(groups, key=lambda key: -len(holders[key]))
    latencies = [CostView("latency", groups[key]) for key in order]
    shared = [view for view, key in zip(latencies, order, strict=True) if len(holders[key]) > 1 or len(kept) == 1]
    rest = [view for view in latencies if view not in shared]
    views = (*shared, CostView("macs"), CostView("params"), *rest)
    without = {
        view: {place: _why_no_latency(studies[place], view) for place in kept if place not in holders[key]}
        for view, key in zip(latencies, order, strict=True)
    }
    return views, {**{view: {} for view in views if view.group is None}, **without}


def _why_no_latency(columns: StudyColumns, view: CostView) -> str:
    assert view.group is not None
    own = trained_groups(columns)
    if not own:
        return "none of its networks is trained and has a latency."
    theirs = "; ".join(_words(group) for group in own[:3])
    return f"it has no latency {_words(view.group)}: its own are {theirs}."


def _words(group: LatencyGroup) -> str:
    return one_line(f"{group.kind} on {group.device}, {group.runtime}, {threads_text(group.threads)}", 160)


# ---- doubts ---------------------------------------------------------------------------------------------


def _doubts_of(studies: Sequence[StudyColumns], kept: Sequence[int], objective: Objective) -> tuple[str, ...]:
    doubts = []
    if len({studies[place].objective for place in kept}) > 1:
        each = ", ".join(f"{_name(studies[place].study)} {studies[place].score_name}" for place in kept)
        doubts.append(f"They maximise different things ({each}), so they are compared by {NAMES[objective]}.")
    tables = {place: replayed_from(studies[place].study.settings) for place in kept}
    doubts += [
        f"{_name(studies[place].study)} was {replayed_words(table)}." for place, table in tables.items() if table
    ]
    if any(studies[place].points for place in kept):
        doubts.append("Networks in 8 or 16 bits are not compared here.")
    return tuple(doubts)
