"""How sure an accuracy is that was measured on a limited number of images."""

from __future__ import annotations

import math


def wilson_interval(fraction: float, images: int) -> tuple[float, float]:
    """Return the 95 % score interval of an accuracy seen on so many images (Wilson 1927)."""
    z2 = 1.959964**2
    middle = (fraction + z2 / (2 * images)) / (1 + z2 / images)
    half = math.sqrt(z2 * (fraction * (1 - fraction) + z2 / (4 * images)) / images) / (1 + z2 / images)
    return max(0.0, middle - half), min(1.0, middle + half)
