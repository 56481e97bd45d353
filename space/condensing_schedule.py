"""When a CondenseNet condenses (CVPR 2018, section 3.2): in C-1 stages, in the first half of its training.

No torch here: code that only describes a training needs it too.
"""

from __future__ import annotations


def stages_due(progress: float, condense_factor: int) -> int:
    """Return how many of the C-1 condensing stages are due: stage s once progress >= s / (2 (C-1)).

    Args:
        progress: fraction of the training done, 0..1.
        condense_factor: C; 1 never condenses.
    """
    last = condense_factor - 1
    return sum(progress >= stage / (2 * last) for stage in range(1, last + 1))


def cut_due(progress: float) -> bool:
    """Return whether the classifier is to read only the features that it keeps: in the second half of the training."""
    return progress >= 0.5
