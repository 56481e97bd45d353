"""A random forest that predicts an outcome from settings, and how well it does so for networks it has not seen.

How well is found on trials that are held out, several times over with other trials. The splits share most of their
trials, so their results scatter less than results of new trials would: the variance of their mean is corrected as by
Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Floats

HELD_OUT = 1 / 3
TREES = 50
JUDGED_TREES = 25  # of the forests that are only judged, since there is one for each split
SPLITS = 6
T_975 = 2.571  # Student's t at 97.5 % for one degree of freedom less than splits
SHARE_DRAWN = 0.8  # of the rows, for each tree
REPEATS = 3  # shuffles of each block of columns in each split
SEED = 0

# scikit-learn sets the process's filters of warnings around each tree and puts them back; two threads at once put back
# each other's, and the process stays without any.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Loss:
    """What the forest's R² loses when a block of columns is shuffled: its mean, and half of the 95 % interval."""

    mean: float
    half: float


@dataclass(frozen=True)
class Judged:
    """A forest on held-out trials: its R² (pooled over the splits), and what it loses for each block of columns."""

    r2: float
    losses: tuple[Loss, ...]


def judge(rows: Any, values: Floats, blocks: Sequence[slice] = ()) -> Judged:
    """Return how well a forest predicts `values` (n,) from `rows` (n, columns), and what each block does for it."""
    rng = np.random.default_rng(SEED)
    cut = max(1, round(len(rows) * HELD_OUT))
    errors, losses = [], []
    for split in range(SPLITS):
        order = rng.permutation(len(rows))
        held, seen = order[:cut], order[cut:]
        forest = fitted(rows[seen], values[seen], JUDGED_TREES, SEED + split)
        base, lost = _errors(forest, rows[held], values[held], blocks, rng)
        errors.append(base)
        losses.append(lost)
    spread = float(values.var()) * cut or 1e-12  # of the held-out trials, the same for every split
    found = np.array(losses).reshape(SPLITS, len(blocks)) / spread  # (splits, blocks)
    correction = math.sqrt(1 / SPLITS + HELD_OUT / (1 - HELD_OUT))
    half = T_975 * found.std(axis=0, ddof=1) * correction
    means = found.mean(axis=0)
    return Judged(
        1 - float(np.mean(errors)) / spread,
        tuple(Loss(float(mean), float(wide)) for mean, wide in zip(means, half, strict=True)),
    )


def fitted(rows: Any, values: Floats, trees: int = TREES, seed: int = SEED) -> Any:
    """Return a forest that has learned `values` (n,) from `rows` (n, columns)."""
    from sklearn.ensemble import RandomForestRegressor

    drawn = max(1, round(SHARE_DRAWN * len(rows)))  # a number, since scikit-learn warns of a share of few rows
    forest = RandomForestRegressor(
        trees, min_samples_leaf=2, max_features=0.7, max_samples=drawn, n_jobs=1, random_state=seed
    )
    with _one_at_a_time:
        return forest.fit(rows, values)


def _predicted(forest: Any, rows: Any) -> Floats:
    """Return what a forest predicts for `rows` (n, columns), (n,)."""
    with _one_at_a_time:
        values: Floats = forest.predict(rows)
    return values


def _errors(
    forest: Any, held: Any, target: Floats, blocks: Sequence[slice], rng: np.random.Generator
) -> tuple[float, Floats]:
    """Return the sum of squared errors on held-out trials, and what each block's shuffling adds to it (blocks,)."""
    base = float(((_predicted(forest, held) - target) ** 2).sum())
    if not blocks:
        return base, np.empty(0)
    shuffled = np.tile(held, (len(blocks) * REPEATS, 1, 1))  # (blocks * repeats, held, columns)
    for index in range(len(shuffled)):
        part = blocks[index // REPEATS]
        shuffled[index, :, part] = held[rng.permutation(len(held)), part]
    expected = _predicted(forest, shuffled.reshape(-1, held.shape[1])).reshape(len(shuffled), len(held))
    raised = ((expected - target) ** 2).sum(axis=1) - base
    return base, raised.reshape(len(blocks), REPEATS).mean(axis=1)
