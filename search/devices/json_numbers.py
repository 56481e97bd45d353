"""Numbers from elsewhere, made ready for the database: JSON has neither infinity nor NaN."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def as_json(value: Any) -> str:
    """Return valid JSON text: a number that isn't finite becomes the string `nan`, `inf` or `-inf`."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def digest(*parts: Any) -> str:
    """Return the SHA-256 of the parts' canonical JSON: equal exactly when all parts are."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
