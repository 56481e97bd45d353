"""What a reader looks at, as it travels between page, address and server.

A page names a group of latencies by a token, since its index in the columns may change while a study grows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dashboards.data.columns import LatencyGroup, Mask, StudyColumns, View

AXES = ("latency", "macs", "params")
MOST_COMPARED = 4


def choice_of(sent: Any) -> dict[str, str]:
    """Return the reader's choice (study, group, axis) as a page sent it; what is no text is left out."""
    if not isinstance(sent, dict):
        return {}
    return {key: value for key, value in sent.items() if isinstance(value, str) and _is_plain(value)}


def _is_plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character, which JSON can write and no database takes
        return False
    return True


def token_of(group: LatencyGroup) -> str:
    """Return the short text that names a group in addresses."""
    parts = json.dumps([group.target, group.kind, group.device, group.runtime, group.threads])
    return hashlib.sha1(parts.encode(), usedforsecurity=False).hexdigest()[:8]


def view_of(columns: StudyColumns, choice: Mapping[str, Any] | None) -> View:
    """Return the view that the page asks for; what it leaves out, or what this study doesn't have, is the default."""
    choice = choice or {}
    tokens = [token_of(group) for group in columns.latency_groups]
    token, axis = choice.get("group"), choice.get("axis")
    group = tokens.index(token) if token in tokens else columns.default_group
    if group is None:
        return View(None, axis if axis in ("macs", "params") else "macs")
    return View(group, axis if axis in AXES else "latency")


def numbers_of(chosen: Any) -> list[int]:
    """Return the trial numbers that a page asks for, at most `MOST_COMPARED`."""
    if not isinstance(chosen, list):
        return []
    numbers = [int(number) for number in chosen if isinstance(number, int | float) and 0 <= number < 2**31]
    return list(dict.fromkeys(numbers))[:MOST_COMPARED]


def brushed(columns: StudyColumns, view: View, brush: Any) -> Mask | None:
    """Return which trials lie inside the brushed ranges of the parallel coordinates; None when nothing is brushed.

    Args:
        columns: the study.
        view: its group says which latency is meant.
        brush: [[dimension, [[low, high], …]], …] with the dimensions' keys of `panels.parallel`.
    """
    if not isinstance(brush, list) or not brush:
        return None
    from dashboards.panels.settings import parallel

    ranges = {str(key): [(float(low), float(high)) for low, high in pairs] for key, pairs in brush}
    mask: Mask = parallel.inside(parallel.dimension_values(columns, view), ranges, len(columns))
    return mask
