"""What the caption of a front says; the two sentences that are needed first come first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dashboards.data.columns import StudyColumns, View
from dashboards.formats import milliseconds, one_line, percent
from dashboards.panels.study.baselines import Baseline
from dashboards.panels.study.front_contents import OBJECTIVES, FrontInfo
from dashboards.panels.study.points import IN_BITS, INT8_NOTE
from workers.wording import agreeing, counted


def notes_of(info: FrontInfo, columns: StudyColumns, view: View) -> Iterator[str]:
    """Yield the sentences."""
    if info.reason is not None:
        return
    yield from _on_front(info, columns, view)
    yield from _on_view(info)
    yield from _on_precisions(info)
    if "latency" in (info.x.key, info.y.key) and view.group is not None:
        yield f"Latency: {columns.latency_groups[view.group]}; bars are 95 % intervals."
    yield from _on_others(info)
    yield from _on_missing(info, columns)
    yield from _on_baselines(info)


def off_line_for(info: FrontInfo) -> str:
    """Return what members of the front beside the line are on it for: "fewer macs"."""
    words = {"score": f"a better {info.front.score_name}", "latency": "less latency", "macs": "fewer macs"}
    return " or ".join(words[name] for name in OBJECTIVES if name not in (info.x.key, info.y.key))


def _on_front(info: FrontInfo, columns: StudyColumns, view: View) -> Iterator[str]:
    if not len(info.front):
        return
    best = "highest" if info.y.more_is_better else "lowest"
    up_to = "from" if info.x.more_is_better else "up to"
    yield f"The line is the {best} {info.y.name} {up_to} each {info.x.name}."
    aside = int((~info.on_line).sum())
    if aside:
        what = agreeing(aside, "The open diamond is a network", "Open diamonds are networks")
        yield f"{what} on the front for {off_line_for(info)}."
    name = "accuracy" if columns.objective == "top1" else columns.score_name
    costs = f"{name}, latency and macs" if view.group is not None else f"{name} and macs"
    yield f"No network beats one on the front in {costs} at once."


def _on_view(info: FrontInfo) -> Iterator[str]:
    if info.bottom_pct is not None:
        accuracies = np.concatenate([points.score_pct for points in info.roles.values()])
        below = int((accuracies < info.bottom_pct).sum())
        trials, are = agreeing(below, "trial", "trials"), agreeing(below, "is", "are")
        bottom = percent(info.bottom_pct / 100, 1)
        yield f"{below:,} {trials} below {bottom} {are} out of sight; a double click shows all."


def _on_precisions(info: FrontInfo) -> Iterator[str]:
    for points, precision, mark in ((info.int8, "int8", "square"), (info.fp16, "fp16", "hexagon")):
        if not len(points):
            continue
        what = agreeing(len(points), f"The {mark} is a network", f"{mark.capitalize()}s are networks")
        yield (
            f"{what} {IN_BITS[precision]} ({precision}) that none in fp32 beats, at the {info.front.score_name} and "
            "the latency of their own files."
        )
    priced = sum(int(points.int8.sum()) for name, points in info.roles.items() if name not in IN_BITS.values())
    if priced and "latency" in (info.x.key, info.y.key):
        trials = f"Open squares: {counted(priced, 'trial')}"
        yield INT8_NOTE.format(trials, info.front.score_name)


def _on_others(info: FrontInfo) -> Iterator[str]:
    if len(info.infeasible):
        refused = counted(len(info.infeasible), "candidate")
        where = "Triangles at the bottom" if info.y.more_is_better else "Triangles"
        yield f"{where}: {refused} over a budget, priced, never trained."
    unfinished = [name for name, points in (("stopped", info.stopped), ("running", info.running)) if len(points)]
    if unfinished and info.y.key == "score":
        yield (
            f"A {' or '.join(unfinished)} trial is shown at the {info.front.score_name} of its last epoch, which is "
            "not that of a deployed network; all others are shown at their deployed network's."
        )


def _on_missing(info: FrontInfo, columns: StudyColumns) -> Iterator[str]:
    lacking = columns.trained & ~(np.isfinite(info.x.values) & np.isfinite(info.y.values))
    if lacking.any():
        number = int(lacking.sum())
        which = next(axis for axis in (info.x, info.y) if not np.isfinite(axis.values[lacking]).all())
        have = agreeing(number, "has", "have")
        yield f"{counted(number, 'trained network')} {have} no {one_line(which.name, 80)} and no place here."


def _on_baselines(info: FrontInfo) -> Iterator[str]:
    networks = (*info.baselines, *info.far_baselines)
    if not all(network.published for network in networks):
        yield (
            "Networks of other kinds were trained by this study's recipe on its images: where one lies above and to "
            "the left of the front, no CondenseNet of this study is the one to deploy."
        )
    if any(network.published for network in networks):
        yield (
            "Published networks: their accuracy on the test images, as printed; the study's own is on its validation "
            "images."
        )
    if info.far_baselines:
        names = ", ".join(f"{network.name} ({_cost_text(network, info)})" for network in info.far_baselines)
        yield f"Outside the chart: {names}."


def _cost_text(network: Baseline, info: FrontInfo) -> str:
    cost = network.cost("latency" if info.x.key == "latency" else "macs" if info.x.key == "macs" else "params")
    shown = milliseconds(cost) if info.x.key == "latency" else f"{cost / info.x.factor:,.4g} {info.x.unit}"
    return f"{percent(network.top1_pct / 100, 1)}, {shown}"
