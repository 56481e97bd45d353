"""The panels' titles on page, report and plots, the question that each answers, and the heading of a picture of one."""

from __future__ import annotations

from dashboards.data.columns import StudyColumns, View
from dashboards.panels.style import Heading
from search.store.replayed import replayed_from, replayed_words

TITLES = {
    "front": ("Pareto front", "How accurate a network can be for what it costs."),
    "macs-latency": ("Macs against latency", "Where counting multiply-adds would mislead you about the device."),
    "parallel": (
        "Every choice at once",
        "Drag along an axis, or choose it here: the table below keeps the trials inside.",
    ),
    "importance": ("What matters", "Which choices decide accuracy, and which decide latency."),
    "contour": ("Two settings together", "What the score is predicted to be for each pair of two settings."),
    "slice": ("Two settings, one by one", "What the trained networks reached for each value of a setting."),
    "curves": ("Learning curves", "How the front's networks learned, with every condensing stage and stop."),
    "progress": ("Progress", "How far the search has come, and who works on it."),
    "timeline": ("Who worked when", "Each worker's trainings and each device's measurements, with waits and attempts."),
    "belief": ("What the search believes", "Where the front is predicted to go, what is proposed next, and why."),
}

SHORT_TITLES = {  # of the links, all of which are to be in sight
    "front": "Front",
    "macs-latency": "Macs",
    "parallel": "Choices",
    "importance": "What matters",
    "contour": "Pairs",
    "slice": "One by one",
    "curves": "Curves",
    "progress": "Progress",
    "timeline": "Timeline",
    "belief": "Belief",
}


def heading_of(columns: StudyColumns, view: View, title: str, of_latencies: bool = True) -> Heading:
    """Return what stands above a picture of a chart: its title, the study, whose latencies, and if it was replayed."""
    place = "" if view.group is None or not of_latencies else str(columns.latency_groups[view.group])
    replayed = replayed_words(replayed_from(columns.study.settings))
    return Heading(title, f"study {columns.study.name}", place, replayed)
