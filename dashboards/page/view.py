"""What a reader looks at, as it travels between page, address and server.

A page names a group of latencies by a token, for its index in the columns may change while a study grows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dashboards.data.columns import LatencyGroup, Mask, StudyColumns, View

AXES = ("latency", "macs", "params")
MOST_COMPARED = 4


def token_of(group: LatencyGroup) -> str:
    """Return the short text that names a group in addresses."""
    parts = json.dumps([group.target, group.kind, group.device, group.runtime, group.threads])
    return hashlib.sha1(parts.encode(), usedforsecurity=False).hexdigest()[:8]


def view_of(columns: StudyColumns, asked: Mapping[str, Any] | None) -> View:
    """Return what the page asks for; what it doesn't say, or says of another study, is the study's default."""
    asked = asked or {}
    tokens = [token_of(group) for group in columns.latency_groups]
    token, axis = asked.get("group"), asked.get("axis")
    group = tokens.index(token) if token in tokens else columns.default_group
    if group is None:
        return View(None, axis if axis in ("macs", "params") else "macs")
    return View(group, axis if axis in AXES else "latency")


def numbers_of(asked: Any) -> list[int]:
    """Return up to four trial numbers that a page asks for."""
    if not isinstance(asked, list):
        return []
    found = [int(one) for one in asked if isinstance(one, int | float) and 0 <= one < 2**31]
    return list(dict.fromkeys(found))[:MOST_COMPARED]


def brushed(columns: StudyColumns, view: View, brush: Any) -> Mask | None:
    """Return which trials lie inside the brushed ranges of the parallel coordinates; None when nothing is brushed.

    Args:
        columns: the study.
        view: its group says which latency is meant.
        brush: [[dimension, [[low, high], …]], …] with the dimensions' keys of `panels.parallel`.
    """
    if not isinstance(brush, list) or not brush:
        return None
    from dashboards.panels.study import parallel

    ranges = {str(key): [(float(low), float(high)) for low, high in pairs] for key, pairs in brush}
    mask: Mask = parallel.inside(parallel.dimension_values(columns, view), ranges, len(columns))
    return mask
