"""What a table can tell, and how far it can be trusted: the noise of its accuracies, and what ranks networks early.

Everything is computed from the CSV as it is shipped. Rank correlations are Spearman's.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.condensebench.table import Array, read_table

COST_GROUPS = 5  # networks of about equal macs, within which a proxy must know more than what a network costs
FEWEST = 5  # rows without which a figure says nothing

Table = dict[str, Array]


def findings(path: Path) -> dict[str, Any]:
    """Return every figure that the documentation of the table states, as plain values."""
    table = read_table(path)
    first = _of_seed(table, 0)
    return {
        "rows": len(table["seed"]),
        "networks": len(first["seed"]),
        "top1": _spread(first["top1"]),
        "macs": _spread(first["macs"]),
        "train_seconds": {"sum": float(table["train_seconds"].sum()), **_spread(table["train_seconds"])},
        "noise": seed_noise(table),
        "test": {
            "rank_correlation": rank_correlation(first["top1"], first["test_top1"]),
            "validation_minus_test": float(np.mean(first["top1"] - first["test_top1"])),
        },
        "epochs": {
            name.removeprefix("top1_"): rank_correlation(first[name], first["top1"])
            for name in first
            if name.startswith("top1_")
        },
        "rankers": {name: ranking(first, name) for name in first if name in ("macs", "params") or "proxy_" in name},
        "latency": {
            name: {**_spread(first[name]), "rank_correlation_with_macs": rank_correlation(first[name], first["macs"])}
            for name in ("pi5_onnxruntime_ms", "pi5_native_ms")
        },
    }


def seed_noise(table: Table) -> dict[str, Any] | None:
    """Return how much a network's top-1 differs between seeds 0 and 1; None with too few networks of both.

    `seed_sd` is the standard deviation of one training around its network's mean: that of the differences over sqrt(2).
    """
    pairs = _pairs(table)
    if len(pairs) < FEWEST:
        return None
    difference = pairs[:, 1] - pairs[:, 0]
    return {
        "networks": len(pairs),
        "seed_sd": float(np.sqrt(np.mean(difference**2) / 2)),
        "mean_difference": float(difference.mean()),
        "largest_difference": float(np.abs(difference).max()),
        "rank_correlation": rank_correlation(pairs[:, 0], pairs[:, 1]),
        "sd_between_networks": float(pairs.mean(axis=1).std(ddof=1)),
    }


def ranking(table: Table, name: str) -> dict[str, float | None]:
    """Return a column's rank correlation with top-1: over all networks, and the mean within groups of similar macs."""
    values, top1 = table[name], table["top1"]
    known = np.isfinite(values)
    order = np.argsort(table["macs"][known], kind="stable")
    groups = [group for group in np.array_split(order, COST_GROUPS) if len(group) >= FEWEST]
    within = [rank_correlation(values[known][group], top1[known][group]) for group in groups]
    measured = [correlation for correlation in within if correlation is not None]
    return {
        "all": rank_correlation(values[known], top1[known]),
        "equal_macs": float(np.mean(measured)) if measured else None,
    }


def rank_correlation(one: Array, other: Array) -> float | None:
    """Return Spearman's rank correlation; None where there are too few values or one side doesn't vary."""
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < FEWEST or np.ptp(one[known]) == 0 or np.ptp(other[known]) == 0:
        return None
    return float(spearmanr(one[known], other[known]).statistic)


def _of_seed(table: Table, seed: int) -> Table:
    chosen = table["seed"] == seed
    return {name: values[chosen] for name, values in table.items()}


def _pairs(table: Table) -> Array:
    """Return top-1 of seeds 0 and 1 of each network that has both, (networks, 2)."""
    names = list(table)
    keys = np.stack([table[name] for name in names[: names.index("seed")]], axis=1)
    by_seed: list[dict[tuple[float, ...], float]] = []
    for seed in (0, 1):
        chosen = table["seed"] == seed
        by_seed.append(dict(zip(map(tuple, keys[chosen]), table["top1"][chosen], strict=True)))
    both = [key for key in by_seed[0] if key in by_seed[1]]
    return np.array([[scores[key] for scores in by_seed] for key in both]).reshape(-1, 2)


def _spread(values: Array) -> dict[str, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return {}
    low, median, high = np.quantile(known, [0.0, 0.5, 1.0])
    return {"min": float(low), "median": float(median), "max": float(high)}


def standard_error(top1: float, images: int) -> float:
    """Return the standard error of an accuracy over so many images (binomial)."""
    return math.sqrt(top1 * (1 - top1) / images)


def lines_of(found: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """Return the findings as lines for people; `about` is the JSON beside the table."""
    top1, noise, validation_images = found["top1"], found["noise"], about["images"]["validation_images"]
    se = standard_error(top1["median"], validation_images)
    hours = found["train_seconds"]["sum"] / 3600
    lines = [
        f"{found['rows']} trainings of {found['networks']} networks, {hours:.1f} h of training",
        f"top-1 {top1['min']:.4f} to {top1['max']:.4f}, median {top1['median']:.4f} (standard error from "
        f"{validation_images:,} validation images: {se:.4f})",
        f"macs {found['macs']['min'] / 1e6:.3f} to {found['macs']['max'] / 1e6:.3f} M",
    ]
    if noise is None:
        lines.append("noise between seeds: not enough networks with two seeds yet")
    else:
        lines.append(
            f"noise between seeds, of {noise['networks']} networks: standard deviation {noise['seed_sd']:.4f}, largest "
            f"difference {noise['largest_difference']:.4f}, rank correlation {_two(noise['rank_correlation'])}; "
            f"between networks the standard deviation is {noise['sd_between_networks']:.4f}"
        )
    test = found["test"]
    lines.append(
        f"validation and test top-1: rank correlation {_two(test['rank_correlation'])}, validation is "
        f"{test['validation_minus_test']:+.4f} higher on average"
    )
    lines.append("rank correlation with the final top-1 after each epoch:")
    lines += [f"  {epoch:>3}  {_two(value)}" for epoch, value in found["epochs"].items()]
    lines.append("rank correlation with top-1: over all networks, and within networks of about equal macs:")
    lines += [f"  {name:26}{_two(row['all']):>7}{_two(row['equal_macs']):>7}" for name, row in found["rankers"].items()]
    for name, row in found["latency"].items():
        if "median" in row:
            with_macs = _two(row["rank_correlation_with_macs"])
            lines.append(f"{name}: {row['min']:.3f} to {row['max']:.3f}, rank correlation with macs {with_macs}")
    return lines


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
