"""Every chart in two steps: an info (plain data, tested) from rows, then a figure from the info."""

from dashboards.figures import curves_figure, front_figure, macs_latency_figure
from dashboards.infos import (
    CurveInfo,
    CurvesInfo,
    FrontInfo,
    MacsLatencyInfo,
    PointInfo,
    curves_info,
    front_info,
    macs_latency_info,
    recommended,
)

__all__ = [
    "CurveInfo",
    "CurvesInfo",
    "FrontInfo",
    "MacsLatencyInfo",
    "PointInfo",
    "curves_figure",
    "curves_info",
    "front_figure",
    "front_info",
    "macs_latency_figure",
    "macs_latency_info",
    "recommended",
]
