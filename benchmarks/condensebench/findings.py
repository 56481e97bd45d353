"""What a table can tell, and how far it can be trusted: the noise of its accuracies, and what ranks networks early.

Everything is computed from the CSV as it is shipped. Rank correlations are Spearman's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.condensebench.table import Array, read_table

COST_GROUPS = 5  # networks of about equal macs, within which a proxy must know more than what a network costs
MARKS = ("<!-- findings: written by the command -->", "<!-- end of findings -->")
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


def as_markdown(found: dict[str, Any], about: dict[str, Any]) -> str:
    """Return the findings as they stand in the documentation; `about` is the JSON beside the table."""
    parts = [
        _heading(found, about),
        _table(("", "least", "median", "most"), _spreads(found)),
        "\n".join(f"- {line}" for line in (*_accuracy_lines(found, about), _time_line(found))),
        "Rank correlation of top-1 after each epoch with the final top-1:",
        _table(found["epochs"], [[_two(value) for value in found["epochs"].values()]]),
        f"Rank correlation with the final top-1, over all networks, and within {COST_GROUPS} groups of networks with "
        "about equal macs (their mean):",
        _table(
            ("", "all networks", "about equal macs"),
            [(_title(name), _two(row["all"]), _two(row["equal_macs"])) for name, row in found["rankers"].items()],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _heading(found: dict[str, Any], about: dict[str, Any]) -> str:
    trainings, wanted = about["trainings"], about["trainings"]["wanted"]
    by_seed = ", ".join(f"{count} with seed {seed}" for seed, count in trainings["by_seed"].items())
    whole = "the table is whole" if trainings["done"] == wanted else f"{wanted} is the whole table"
    failed = f", {len(trainings['failed'])} failed" if trainings["failed"] else ""
    return f"**{found['rows']} trainings** of {found['networks']} networks: {by_seed}{failed}; {whole}."


def _spreads(found: dict[str, Any]) -> list[tuple[str, ...]]:
    spreads = {"top-1 (validation)": (found["top1"], 4, 1.0), "macs, millions": (found["macs"], 3, 1e6)}
    spreads["seconds of one training"] = (found["train_seconds"], 1, 1.0)
    titles = {"pi5_onnxruntime_ms": "Pi 5 with onnxruntime, ms", "pi5_native_ms": "Pi 5 with the project's kernel, ms"}
    spreads |= {titles[name]: (row, 3, 1.0) for name, row in found["latency"].items() if "min" in row}
    return [
        (title, *(f"{spread[end] / unit:.{digits}f}" for end in ("min", "median", "max")))
        for title, (spread, digits, unit) in spreads.items()
    ]


def _accuracy_lines(found: dict[str, Any], about: dict[str, Any]) -> list[str]:
    noise, test, images = found["noise"], found["test"], about["images"]["validation_images"]
    lines = [
        f"Standard error of a top-1 over {images:,} validation images: "
        f"{standard_error(found['top1']['median'], images):.4f}."
    ]
    if noise is None:
        lines.append("Noise between seeds: too few networks have two seeds yet.")
    else:
        lines.append(
            f"Noise between seeds ({noise['networks']} networks with two): one training's standard deviation is "
            f"{noise['seed_sd']:.4f}, the largest difference {noise['largest_difference']:.4f}; between networks the "
            f"standard deviation is {noise['sd_between_networks']:.4f}. Rank correlation of the two seeds: "
            f"{_two(noise['rank_correlation'])}."
        )
    correlation, difference = _two(test["rank_correlation"]), test["validation_minus_test"]
    lines.append(
        f"Validation and test top-1: rank correlation {correlation}; validation is {difference:+.4f} on average."
    )
    lines += [
        f"`{name}` and macs: rank correlation {_two(row['rank_correlation_with_macs'])}."
        for name, row in found["latency"].items()
    ]
    return lines


def _time_line(found: dict[str, Any]) -> str:
    return f"All trainings together: {found['train_seconds']['sum'] / 3600:.1f} hours of one processor."


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _title(name: str) -> str:
    return f"`{name}`"


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def put_into(document: Path, text: str) -> None:
    """Replace what stands between the document's marks by `text`."""
    before, _, rest = document.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    document.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}")


def part_of(document: Path) -> str:
    """Return what stands between the document's marks."""
    return document.read_text().partition(f"{MARKS[0]}\n")[2].partition(MARKS[1])[0]
