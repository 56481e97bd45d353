"""What a cheaper training is worth: its share of the seconds, and whether it ranks networks as the full one does.

Every variant is trained with the full training's first seed and compared with the full trainings of the second, in
which nothing random is the same. How well the full training of the first seed ranks like that of the second is what a
variant is compared with; by chance it may come out above that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.cheaper_trainings.variants import AGAIN, FULL, VARIANTS
from benchmarks.condensebench.journal import Row
from search.results.pareto import non_dominated
from space.config import CondenseNetConfig
from space.cost import cost_of

Values = npt.NDArray[np.float64]
MACS_ALONE = "no training: more macs rank higher"
STOPPED = {"full training, stopped at half": 0.5, "full training, stopped at a quarter": 0.25}  # read off its curve
DRAWS = 2000  # of the bootstrap


@dataclass(frozen=True)
class Trained:
    """All figures of the networks that every variant has trained, in one order."""

    macs: Values  # (n,)
    top1: Mapping[str, Values]  # by variant
    seconds: Mapping[str, Values]
    fits: Mapping[str, Values]  # share of the weights that came from the neighbour


def complete(rows: Sequence[Row]) -> Trained:
    """Return the figures of the networks that no variant lacks; a network that failed in any is left out."""
    by_network: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_network.setdefault(row["digest"], {})[row["variant"]] = row
    names = [variant.name for variant in VARIANTS]
    whole = [rows for rows in by_network.values() if all("top1" in rows.get(name, {}) for name in names)]
    configs = [CondenseNetConfig.from_dict(rows[FULL.name]["config"]) for rows in whole]

    def column(key: str) -> dict[str, Values]:
        return {name: np.array([rows[name][key] for rows in whole], dtype=float) for name in names}

    macs = np.array([cost_of(config).macs for config in configs], dtype=float)
    top1, seconds = column("top1"), column("seconds")
    for name, progress in STOPPED.items():
        reached = [_reached(rows[FULL.name]["curve"], progress) for rows in whole]
        top1[name], seconds[name] = np.array(reached, dtype=float).reshape(-1, 2).T
    return Trained(macs, top1, seconds, column("share_that_fits"))


def _reached(curve: Sequence[Sequence[float]], progress: float) -> tuple[float, float]:
    """Return the accuracy of the first epoch that ends at `progress` or later, and the seconds until then."""
    _, top1, seconds = next(row for row in curve if row[0] >= progress - 1e-9)
    return top1, seconds


def compare(trained: Trained) -> dict[str, dict[str, Any]]:
    """Return a row of figures for each variant, by its name; `MACS_ALONE` is the last."""
    full, judge = trained.top1[FULL.name], trained.top1[AGAIN.name]
    both = (trained.seconds[FULL.name] + trained.seconds[AGAIN.name]).sum() / 2
    scores = {name: top1 for name, top1 in trained.top1.items() if name != AGAIN.name}
    table: dict[str, dict[str, Any]] = {}
    for name, score in (scores | {MACS_ALONE: trained.macs}).items():
        table[name] = {
            "spearman": float(spearman(score, judge)),
            "kendall": float(stats.kendalltau(score, judge).statistic),
            "below_full": below_full(score, full, judge),
            **front_figures(score, judge, trained.macs),
        }
        if name in trained.seconds:
            table[name]["seconds_share"] = float(trained.seconds[name].sum() / both)
            table[name]["top1_difference"] = float((score - (full + judge) / 2).mean())
        if name in trained.fits and trained.fits[name].any():
            table[name]["share_that_fits"] = float(trained.fits[name].mean())
    return table


def spearman(one: Values, other: Values) -> Values:
    """Return the rank correlations along the last axis; NaN where either doesn't vary."""
    ranks = [stats.rankdata(values, axis=-1) for values in (one, other)]
    a, b = (values - values.mean(-1, keepdims=True) for values in ranks)
    spread = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.where(spread > 0, (a * b).sum(-1) / np.where(spread > 0, spread, 1.0), np.nan)


def below_full(score: Values, full: Values, judge: Values) -> dict[str, float]:
    """Return by how much the rank correlation is below the full training's, with its 95 % interval over networks."""
    drawn = np.random.default_rng(0).integers(0, len(judge), (DRAWS, len(judge)))
    differences = spearman(full[drawn], judge[drawn]) - spearman(score[drawn], judge[drawn])
    low, high = np.nanquantile(differences, (0.025, 0.975))
    return {"difference": float(spearman(full, judge) - spearman(score, judge)), "low": float(low), "high": float(high)}


def front_figures(score: Values, judge: Values, macs: Values) -> dict[str, Any]:
    """Return how good the front is that `score` chooses among (score, macs), by the judge's accuracies.

    `volume` is the area that the chosen networks dominate in (error, log macs), as a share of what the judge's own
    front dominates; `in_common` the share of the networks on either front that are on both.
    """
    chosen = non_dominated(np.column_stack([-score, macs]))
    best = non_dominated(np.column_stack([-judge, macs]))
    volume = dominated_area(1 - judge[chosen], macs[chosen], 1 - judge, macs)
    return {
        "front": int(chosen.sum()),
        "volume": volume / dominated_area(1 - judge[best], macs[best], 1 - judge, macs),
        "in_common": float((chosen & best).sum() / (chosen | best).sum()),
    }


def dominated_area(errors: Values, macs: Values, all_errors: Values, all_macs: Values) -> float:
    """Return the share of the box around all networks, in error and log macs, that the given ones dominate."""
    worst, best = all_errors.max(), all_errors.min()
    high, low = np.log(all_macs.max()), np.log(all_macs.min())
    area, reached = 0.0, worst
    order = np.argsort(macs, kind="stable")
    for error, cost in zip(errors[order], np.log(macs[order]), strict=True):
        if error < reached:
            area += (reached - error) * (high - cost)
            reached = error
    return float(area / ((worst - best) * (high - low)))


def lines(table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table as Markdown."""
    head = "| training | seconds | Spearman | below full training (95 %) | Kendall | front's area | in common | top-1 |"
    rows = [head, "|---|---|---|---|---|---|---|---|"]
    for name, row in table.items():
        gap = row["below_full"]
        trained = "seconds_share" in row
        cells = (
            name,
            f"{100 * row['seconds_share']:.0f} %" if trained else "0",
            f"{row['spearman']:.3f}",
            "" if name == FULL.name else f"{gap['difference']:.3f} ({gap['low']:.3f} to {gap['high']:.3f})",
            f"{row['kendall']:.3f}",
            f"{100 * row['volume']:.1f} %",
            f"{100 * row['in_common']:.0f} %",
            f"{100 * row['top1_difference']:+.2f}" if trained else "",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return rows
