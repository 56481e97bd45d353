"""The learning rate over a training. No torch here: code that only reports epochs needs it too."""

from __future__ import annotations

import math


def learning_rate_at(step: float, steps: int, peak: float) -> float:
    """Cosine from `peak` at step 0 towards 0 at step `steps`."""
    return 0.5 * peak * (1.0 + math.cos(math.pi * step / steps))
