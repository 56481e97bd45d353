"""The learning rate over a training. No torch here: code that only reports epochs needs it too."""

from __future__ import annotations

import math


def learning_rate_at(step: float, steps: int, peak: float, warmup: float = 0.0) -> float:
    """Cosine from `peak` at step 0 towards 0 at step `steps`; in the share `warmup` of the steps it rises to that."""
    rise = min(1.0, (step + 1) / (warmup * steps)) if warmup > 0 else 1.0
    return rise * 0.5 * peak * (1.0 + math.cos(math.pi * step / steps))
