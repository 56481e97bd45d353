"""From networks that were counted and measured to a device profile (`workers.latency.profiles`).

- Both fits are non-negative least squares (Lawson and Hanson 1974) on relative error: each network's row is divided by
  its measured latency, so that a small network counts as much as a large one.
- Eight prices overfit a handful of networks. So the `classes` fit may be pulled, as in ridge regression, towards prices
  that need less data: those of the `two` fit, or those of another device's profile times one factor. The error of
  leaving each network out in turn decides whether, how hard and towards which.
"""

from __future__ import annotations

import csv
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.optimize import nnls
from scipy.special import stdtrit

from space.errors import InvalidSettings
from workers.latency.profiles import CLASSES, Fit, LeaveOneOut, Profile, first_error, in_millions

Array = NDArray[np.float64]
FitPrices = Callable[[Array, Array], Array]  # (networks, 8) millions, (networks,) ms -> (8,) ms per million

NETWORKS_LEAST = 8
PULLS = (0.01, 0.1)  # weight of the pull in units of the data's own weight for each class
_FMA = CLASSES.index("vfma")
_METHOD = "non-negative least squares on relative error"


@dataclass(frozen=True)
class Calibration:
    """What a profile says about itself besides its figures."""

    title: str = ""  # of the device; "" = the profile's name
    runtime: str = "onnxruntime"
    threads: int = 1
    origin: str = "this user's own networks, counted and measured"
    counted_with: tuple[tuple[str, str], ...] = ()  # (name, version) of what counted: runtime, emulator


def fit_profile(
    name: str,
    networks: Sequence[tuple[Mapping[str, float], float]],
    calibration: Calibration | None = None,
    like: Profile | None = None,
) -> Profile:
    """Return a device profile fitted to 8 or more different networks, each (instruction counts by class, measured ms).

    `like` is the profile of a similar device: the eight-class fit may use the ratios between its prices.

    Raises InvalidSettings for fewer networks, counts that `in_millions` refuses, latencies that aren't finite and > 0,
    or a name that a profile can't have.
    """
    about = calibration or Calibration()
    rows, measured = _checked(name, networks)
    fit_classes, method = _classes_recipe(rows, measured, like)
    left_out = {"classes": _left_out(fit_classes, rows, measured), "two": _left_out(_two_prices, rows, measured)}
    two = _two_prices(rows, measured)
    document = {
        "name": name,
        "title": about.title or name,
        "runtime": about.runtime,
        "threads": about.threads,
        "origin": about.origin,
        "networks": len(rows),
        "classes": Fit(
            method=method,
            ms_per_million=dict(zip(CLASSES, fit_classes(rows, measured).tolist(), strict=True)),
            leave_one_out=_errors(left_out["classes"], measured),
        ),
        "two": Fit(
            method=_METHOD,
            ms_per_million={"all": float(two.min()), "vfma": float(two[_FMA] - two.min())},
            leave_one_out=_errors(left_out["two"], measured),
        ),
        "estimate_leave_one_out": _errors((left_out["classes"] + left_out["two"]) / 2, measured),
        **_ranges(rows, measured),
        "created_with": _versions() | dict(about.counted_with),
    }
    return _profile(name, document)


def _profile(name: str, document: Mapping[str, Any]) -> Profile:
    try:
        return Profile.model_validate(document)
    except ValidationError as error:
        raise InvalidSettings(f"no profile {name!r} can be made: {first_error(error)}") from None


def _ranges(rows: Array, measured: Array) -> dict[str, Any]:
    """Return the ranges of the networks' instructions in millions, of their shares, and of the latencies."""
    size = rows.sum(axis=1)
    shares = rows / size[:, None]
    return {
        "millions": {"all": _span(size)} | {key: _span(rows[:, i]) for i, key in enumerate(CLASSES)},
        "shares": {key: _span(shares[:, i]) for i, key in enumerate(CLASSES)},
        "latency_ms": _span(measured),
    }


def read_networks(path: Path, latency: str) -> list[tuple[dict[str, float], float]]:
    """Read (counts in instructions, latency in ms) from a CSV with a column `CLASS_million` per class and `latency`.

    Raises InvalidSettings, naming file, row and column, for a file that isn't one.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_network(path, line, row, latency) for line, row in enumerate(csv.DictReader(file), start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidSettings(f"the calibration file {path} can't be read: {error}.") from None


def _network(path: Path, line: int, row: Mapping[str, str | None], latency: str) -> tuple[dict[str, float], float]:
    values = {}
    for column in (*(f"{name}_million" for name in CLASSES), latency):
        try:
            values[column] = float(row.get(column) or "")
        except ValueError:
            got = repr(row[column]) if column in row else "no such column"
            raise InvalidSettings(
                f"{path}, line {line}: `{column}` must be a number, but got {got}; correct the file."
            ) from None
    return {name: values[f"{name}_million"] * 1e6 for name in CLASSES}, values[latency]


def _checked(name: str, networks: Iterable[tuple[Mapping[str, float], float]]) -> tuple[Array, Array]:
    """Return counts in millions (networks, 8) and latencies in ms (networks,)."""
    rows, measured = [], []
    for number, (counts, latency_ms) in enumerate(networks):
        try:
            millions = in_millions(counts)
        except ValueError as error:
            raise InvalidSettings(f"network {number} of profile {name!r}: {error}; count it again.") from None
        if not (math.isfinite(latency_ms) and latency_ms > 0):
            raise InvalidSettings(
                f"network {number} of profile {name!r}: a latency must be finite and > 0 ms, but got {latency_ms}; "
                "measure it again."
            )
        rows.append([millions[key] for key in CLASSES])
        measured.append(latency_ms)
    different = len({tuple(row) for row in rows})
    if different < NETWORKS_LEAST:
        raise InvalidSettings(
            f"a profile needs at least {NETWORKS_LEAST} different networks, but {name!r} has {different}; "
            "count and measure more."
        )
    return np.array(rows), np.array(measured)


def _two_prices(rows: Array, measured: Array) -> Array:
    """Return one price for all classes, and more for vector multiply-adds, as (8,)."""
    features = np.column_stack([rows.sum(axis=1), rows[:, _FMA]])  # (networks, 2)
    each, more = nnls(features / measured[:, None], np.ones(len(rows)))[0]
    prices = np.full(len(CLASSES), each)
    prices[_FMA] += more
    return prices


def _class_prices(pull: float, towards: FitPrices) -> FitPrices:
    """Return the eight-class fit with a pull towards the prices that `towards` finds in the same rows."""

    def prices(rows: Array, measured: Array) -> Array:
        relative = rows / measured[:, None]  # (networks, 8)
        target = np.ones(len(rows))
        if pull:
            weight = np.sqrt(pull) * np.linalg.norm(relative, axis=0)  # (8,)
            relative = np.vstack([relative, np.diag(weight)])
            target = np.concatenate([target, weight * towards(rows, measured)])
        return np.asarray(nnls(relative, target)[0])

    return prices


def _scaled(like: Profile) -> FitPrices:
    """Return the fit that multiplies another profile's eight prices by one factor."""
    prices_of_like = np.array([like.classes.ms_per_million[name] for name in CLASSES])

    def prices(rows: Array, measured: Array) -> Array:
        relative = rows @ prices_of_like / measured
        square = relative @ relative
        return np.asarray(prices_of_like * (relative.sum() / square if square else 0.0))

    return prices


def _classes_recipe(rows: Array, measured: Array, like: Profile | None) -> tuple[FitPrices, str]:
    """Return the eight-class fit whose leave-one-out error is least, and its description."""
    recipes = {f"{_METHOD}, eight classes free": _class_prices(0.0, _two_prices)}
    sources = {"the fit of two prices": _two_prices} | (
        {f"{like.name} times one factor": _scaled(like)} if like else {}
    )
    for source, towards in sources.items():
        for pull in PULLS:
            recipes[f"{_METHOD}, pulled towards {source} by {pull:g}"] = _class_prices(pull, towards)
    error = {text: _root_mean_square(_left_out(fit, rows, measured), measured) for text, fit in recipes.items()}
    best = min(error, key=lambda text: error[text])
    return recipes[best], f"{best} (least leave-one-out error of {len(recipes)} candidates)"


def _left_out(fit: FitPrices, rows: Array, measured: Array) -> Array:
    """Return each network's estimate in ms by the fit to all others, (networks,)."""
    kept = ~np.eye(len(rows), dtype=bool)
    return np.array([row @ fit(rows[keep], measured[keep]) for row, keep in zip(rows, kept, strict=True)])


def _root_mean_square(estimated: Array, measured: Array) -> float:
    return float(np.sqrt(np.mean((estimated / measured - 1) ** 2)))


def _errors(estimated: Array, measured: Array) -> LeaveOneOut:
    error = np.abs(estimated / measured - 1)
    return LeaveOneOut(
        median_error=float(np.median(error)),
        max_error=float(error.max()),
        margin=float(stdtrit(len(error), 0.975)) * _root_mean_square(estimated, measured),
        rank_correlation=rank_correlation(estimated, measured),
    )


def rank_correlation(first: Array, second: Array) -> float | None:
    """Return Spearman's rank correlation, ties at their mean rank; None where one side doesn't vary."""
    ranks = []
    for values in (first, second):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    if np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return None
    return float(np.clip(np.corrcoef(ranks[0], ranks[1])[0, 1], -1.0, 1.0))


def _span(values: Array) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("condensery", "numpy", "scipy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a checkout
            continue
    return versions
