"""Every chart in two steps: an info (plain data, tested) from a study's columns, then a figure from the info.

Each module has `X_info(columns, view, ...)`, whose result knows its `table()` and the `reason` why it can't be shown,
and `X_figure(info)`, which only draws. In a notebook:

    from dashboards.panels import study_figures
    study_figures("digits").front()
"""

from __future__ import annotations

from space.lazy_names import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "study.front": "front_info FrontOptions",
        "study.front_contents": "FrontInfo",
        "study.front_drawing": "front_figure",
        "study.macs_latency": "macs_latency_info macs_latency_figure MacsLatencyInfo",
        "settings.parallel": "parallel_info parallel_figure ParallelInfo brushed dimension_values",
        "settings.importance": "importance_info importance_figure ImportanceInfo",
        "settings.contour": "contour_info contour_figure ContourInfo",
        "settings.slices": "slice_info slice_figure SliceInfo",
        "study.progress": "progress_info progress_figure ProgressInfo",
        "study.timeline": "timeline_info timeline_figure TimelineInfo",
        "study.belief": "belief_info belief_figure BeliefInfo",
        "study.curves": "curves_info curves_figure curve_numbers CurvesInfo MOST_CURVES",
        "trial.network": "network_info network_figure NetworkInfo",
        "trial.networks": "networks_info networks_figure NetworksInfo",
        "trial.kept_channels": "kept_channels_info kept_channels_figure kept_layer_figure KeptChannelsInfo",
        "trial.confusion": "confusion_info confusion_figure ConfusionInfo",
        "trial.measurements": "measurements_info measurements_figure MeasurementsInfo",
        "trial.compare": "compare_info compare_figure CompareInfo",
        "trial.tables": "trial_tables settings_json",
        "style": "PLOT_CONFIG Heading headed",
        "data_table": "DataTable",
        "captions": "Caption",
        "notebook": "study_figures StudyFigures",
    },
)
__all__ = __dir__()
