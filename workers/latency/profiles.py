"""From counted instructions to estimated milliseconds: what a device profile holds, and the estimate it gives.

On one core a network's latency is close to linear in its executed instructions by class. A `Profile` holds two such
fits for one device, runtime and number of threads:

- `classes`: one price for each of the eight classes; the closer one among networks like those it was fitted on;
- `two`: one price for every instruction and one more for a vector multiply-add; the steadier one elsewhere.

Neither has a constant. The estimate is their mean, its interval holds both fits with their leave-one-out errors, and a
network unlike the calibrated ones is marked. `workers.latency.calibration` makes profiles.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from space.errors import InvalidSettings, MeasurementFailed
from workers.files import disk_errors, write_atomically
from workers.settings import Settings

CLASSES = ("branch", "load", "store", "vload", "vstore", "vfma", "simd_fp", "int")
PRICED = {"classes": CLASSES, "two": ("all", "vfma")}  # what each fit puts a price on

PROFILE_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
VIRTUAL = "virtual:"  # + a profile's name: the ARM device in software, as a device of a study

SIZE_SLACK = 1.5  # a network up to this many times larger or smaller than the calibrated ones is inside their range
SHARE_SLACK = 0.02  # and so is one whose mix of instructions is outside by up to this share
OUTSIDE_STRETCH = 2.0  # how much wider an interval gets outside, before size; measured by benchmarks/estimate.py

_SHIPPED = Path(__file__).with_name("profiles")
_MILLION = 1e6
_SUM_TOLERANCE = 0.01  # classes are medians of their own, so they add up to `all` only nearly


def _ordered(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError(f"low <= high must hold, but got (low={span[0]:g}, high={span[1]:g})")
    return span


NonNegative = Annotated[float, Field(ge=0.0)]
Span = Annotated[tuple[NonNegative, NonNegative], AfterValidator(_ordered)]


def _exactly(names: tuple[str, ...], values: dict[str, object]) -> None:
    if set(values) != set(names):
        raise ValueError(f"the keys must be exactly {', '.join(names)}, but are {', '.join(sorted(values)) or 'none'}")


class LeaveOneOut(Settings):
    """The errors of estimates when each calibration network was left out of the fit in turn.

    Errors are |estimate / measured - 1|. `margin` is the 95 % margin of such an error for one new network: Student's t
    times the root mean square.
    """

    median_error: NonNegative
    max_error: NonNegative
    margin: NonNegative
    rank_correlation: Annotated[float, Field(ge=-1.0, le=1.0)] | None  # Spearman's; None where all latencies are equal


class Fit(Settings):
    """Prices in milliseconds per million instructions, with the method and the errors of the fit."""

    method: str
    ms_per_million: dict[str, NonNegative]
    leave_one_out: LeaveOneOut


def _classes_fit(fit: Fit) -> Fit:
    _exactly(PRICED["classes"], dict(fit.ms_per_million))
    return fit


def _two_fit(fit: Fit) -> Fit:
    _exactly(PRICED["two"], dict(fit.ms_per_million))
    return fit


def _amounts(spans: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    _exactly(("all", *CLASSES), dict(spans))
    return spans


def _shares(spans: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    _exactly(CLASSES, dict(spans))
    return spans


@dataclass(frozen=True)
class Estimate:
    """An estimated latency in ms; `interval_low_ms <= latency_ms <= interval_high_ms` is its 95 % interval.

    `extrapolates` says that the network is unlike those the profile was fitted to, `reason` says how ("" otherwise);
    `by_fit` is the latency in ms that each fit gives.
    """

    latency_ms: float
    interval_low_ms: float
    interval_high_ms: float
    extrapolates: bool
    reason: str
    by_fit: dict[str, float]


class Profile(Settings):
    """The prices of instructions on one device, runtime and number of threads, and the data they were fitted to."""

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=PROFILE_NAME)]
    title: str
    runtime: str
    threads: Annotated[int, Field(ge=1, le=1024)]
    origin: str  # where counts and latencies came from
    networks: Annotated[int, Field(ge=8)]  # how many it was fitted on
    classes: Annotated[Fit, AfterValidator(_classes_fit)]
    two: Annotated[Fit, AfterValidator(_two_fit)]
    estimate_leave_one_out: LeaveOneOut  # of the mean of the two fits
    millions: Annotated[dict[str, Span], AfterValidator(_amounts)]  # calibrated range of each count, in millions
    shares: Annotated[dict[str, Span], AfterValidator(_shares)]  # and of each class's share of all instructions
    latency_ms: Span  # and of the measured latencies
    created_with: dict[str, str]  # versions, by name

    def estimate(self, counts: Mapping[str, float]) -> Estimate:
        """Estimate one network's latency from its executed instructions by class (`CLASSES`; `all` may be there too).

        The latency is the mean of the two fits. The interval reaches from the lower to the higher fit, each moved out
        by its 95 % margin. Outside the calibrated range both ends move out further, `stretch` times as far in ratio:
        twice, and once more for each doubling of the network's size beyond the range.

        Raises MeasurementFailed when a class is missing, a count is negative or not finite, or they don't add up.
        """
        try:
            millions = in_millions(counts)
        except ValueError as error:
            raise MeasurementFailed(f"no estimate from these counts: {error}; count the network again") from None
        fits = {"classes": self.classes, "two": self.two}
        by_fit = {
            name: math.fsum(price * millions[key] for key, price in fit.ms_per_million.items())
            for name, fit in fits.items()
        }
        latency = math.fsum(by_fit.values()) / len(by_fit)
        low = min(by_fit[name] / (1 + fit.leave_one_out.margin) for name, fit in fits.items())
        high = max(by_fit[name] * (1 + fit.leave_one_out.margin) for name, fit in fits.items())
        stretch, reason = self._outside(millions)
        if latency > 0 and reason:
            low, high = latency * (low / latency) ** stretch, latency * (high / latency) ** stretch
        return Estimate(latency, min(low, latency), max(high, latency), bool(reason), reason, by_fit)

    def _outside(self, millions: Mapping[str, float]) -> tuple[float, str]:
        """Return how many times wider the interval gets, and what lies outside the calibrated range ("": nothing).

        Size and mix are enough: with both inside, every single class is inside too, up to the slacks.
        """
        size, (least, most) = millions["all"], self.millions["all"]
        beyond = max(size / most, least / size)
        reasons = []
        if beyond > SIZE_SLACK:
            reasons.append(f"{size:.4g} M instructions in all (calibrated on {least:.4g} to {most:.4g} M)")
        far, name = max((_distance(millions[name] / size, self.shares[name]), name) for name in CLASSES)
        if far > SHARE_SLACK:
            low, high = self.shares[name]
            share = millions[name] / size
            reasons.append(f"{share:.1%} of its instructions are {name} (calibrated on {low:.1%} to {high:.1%})")
        return OUTSIDE_STRETCH + math.log2(max(beyond, 1.0)), "; ".join(reasons)


def _distance(value: float, span: tuple[float, float]) -> float:
    return max(span[0] - value, value - span[1], 0.0)


def in_millions(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the eight classes and `all` (their sum) in millions, from single instructions.

    Raises ValueError when a class is missing, a count is negative or not finite, all are zero, or `all` is given and
    is not their sum within 1 %.
    """
    missing = [name for name in CLASSES if name not in counts]
    if missing:
        raise ValueError(f"the counts must name {', '.join(CLASSES)}, but {', '.join(missing)} is missing")
    for name in CLASSES:
        if not (math.isfinite(counts[name]) and counts[name] >= 0):
            raise ValueError(f"a count must be finite and >= 0, but {name} is {counts[name]}")
    total = math.fsum(counts[name] for name in CLASSES)
    if not (0 < total < math.inf):
        raise ValueError("at least one count must be > 0, but all are 0")
    if "all" in counts and not math.isclose(counts["all"], total, rel_tol=_SUM_TOLERANCE):
        raise ValueError(f"the classes must add up to all = {counts['all']:.0f}, but make {total:.0f}")
    return {"all": total / _MILLION} | {name: counts[name] / _MILLION for name in CLASSES}


def shipped_profiles() -> list[str]:
    """Return the names of the profiles that come with the application, sorted."""
    return sorted(path.stem for path in _SHIPPED.glob("*.json"))


def load_profile(name_or_path: str | Path) -> Profile:
    """Read a shipped profile by name, or any profile file by path; NAME alone is also NAME.json in this folder.

    Raises InvalidSettings, naming file and key, when there is none or it isn't a valid profile.
    """
    shipped, path = shipped_profiles(), Path(name_or_path)
    if str(name_or_path) in shipped:
        path = _SHIPPED / f"{name_or_path}.json"
    elif path.suffix == "" and not path.exists():
        path = path.with_name(f"{path.name}.json")
    try:
        return Profile.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise InvalidSettings(
            f"no profile is called {name_or_path}; there are {', '.join(shipped)}, or name a profile's JSON file."
        ) from None
    except OSError as error:
        raise InvalidSettings(f"the profile {path} can't be read: {error.strerror}.") from None
    except ValidationError as error:
        raise InvalidSettings(f"the profile {path} is not valid: {first_error(error)}") from None


def virtual_device(name: str) -> tuple[Profile, str]:
    """Return the profile of `virtual:PROFILE` and the label of what it estimates.

    The label of a profile that isn't shipped holds a hash of its content: when it is calibrated again, it is another
    device.
    """
    profile_name = name.removeprefix(VIRTUAL)
    profile = load_profile(profile_name)
    if profile_name in shipped_profiles():
        return profile, name
    text = json.dumps(profile.model_dump(mode="json"), sort_keys=True)
    return profile, f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def save_profile(profile: Profile, path: Path) -> None:
    """Write a profile as JSON with sorted keys that a person can read; DiskFull or ReadOnlyFolder when that fails."""
    text = json.dumps(profile.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())


def check_writable(path: Path) -> str:
    """Return the name of the profile that `path` is to hold, before anything is measured for it.

    Raises:
        InvalidSettings: the path exists, or its name can't be a profile's.
        ReadOnlyFolder, DiskFull: nothing can be written there.
    """
    name = path.name.removesuffix(".json")
    if path.exists():
        raise InvalidSettings(f"{path} exists; choose another path, or remove it first.")
    if re.fullmatch(PROFILE_NAME, name) is None:
        rule = "a profile's name must be at most 64 lower-case letters, digits, dots, - and _"
        raise InvalidSettings(f"{rule}, but {name!r} isn't; choose another name for {path.name}.")
    with disk_errors(path):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.absolute().parent).close()
    return name


def first_error(error: ValidationError) -> str:
    """Return the first wrong key and its error, in one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key `{where}`; remove it."
    if first["type"] == "missing":
        return f"`{where}` is missing."
    message = first["msg"].removeprefix("Value error, ")
    return f"`{where}`: {message}." if where else f"{message}."
