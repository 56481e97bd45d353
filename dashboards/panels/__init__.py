"""Every chart in two steps: an info (plain data, tested) from a study's columns, then a figure from the info.

Each module has `X_info(columns, view, ...)`, whose result knows its `table()` and the `reason` why it can't be shown,
and `X_figure(info)`, which only draws. In a notebook:

    from dashboards.panels import study_figures
    study_figures("digits").front()
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "front": "front_info FrontInfo FrontOptions",
    "front_drawing": "front_figure",
    "macs_latency": "macs_latency_info macs_latency_figure MacsLatencyInfo",
    "parallel": "parallel_info parallel_figure ParallelInfo brushed dimension_values",
    "importance": "importance_info importance_figure ImportanceInfo",
    "progress": "progress_info progress_figure ProgressInfo",
    "curves": "curves_info curves_figure curve_numbers CurvesInfo MOST_CURVES",
    "network": "network_info network_figure NetworkInfo",
    "kept_channels": "kept_channels_info kept_channels_figure kept_layer_figure KeptChannelsInfo",
    "measurements": "measurements_info measurements_figure MeasurementsInfo",
    "compare": "compare_info compare_figure CompareInfo",
    "trial": "trial_tables settings_json",
    "look": "PLOT_CONFIG DataTable",
    "points": "LastEpoch",
    "notebook": "study_figures StudyFigures",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
