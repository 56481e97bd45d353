"""What a budget table consists of: the networks that can be best or second under some budget, and the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.budget.noise import as_good_as
from dashboards.data.columns import Floats, Latencies, StudyColumns
from dashboards.data.latency_marks import kind_words
from dashboards.formats import NOTHING, count, digits_ms, one_line, percent
from search.results.remarks import remarks_of_study
from workers.metrics import Predictions, wilson_interval


@dataclass(frozen=True)
class Offer:
    """A network that is the best or the second best under some budget; latencies in ms, on the devices of its table."""

    number: int
    high_ms: tuple[float, ...]  # upper ends of the 95 % intervals: what must fit a budget
    median_ms: tuple[float, ...]
    kinds: tuple[str, ...]  # what each latency is: "measured", "predicted, extrapolated"; "" where there is none
    groups: tuple[int, ...]  # of each latency, as index into `StudyColumns.latency_groups`; -1: no latency
    score: float
    macs: int
    params: int
    name: str  # "trial 7 (14-14-14 growth 8-16-32 G=4 C=4 B=4)"
    accuracy: str  # "94.61 % top-1 (95 % interval 93.9 % to 95.2 %)"
    as_good: tuple[int, ...]  # places in the table of the offers that it is as good as within noise
    remarks: tuple[str, ...]  # what speaks against its accuracy, see `search.results.remarks`
    latency: str  # "11.20 ms [11.1, 11.4] (measured)", of each device

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with the texts that page and report show; an infinite latency is null."""
        return {
            **vars(self),
            "high_ms": [finite(ms) for ms in self.high_ms],
            "median_ms": [finite(ms) for ms in self.median_ms],
            "median_texts": [f"{digits_ms(ms, 4)} ms" if math.isfinite(ms) else NOTHING for ms in self.median_ms],
            "score_text": percent(self.score),
            "macs_text": count(self.macs),
            "params_text": count(self.params),
        }


def finite(ms: float) -> float | None:
    """Return a latency as JSON has it: None where it is infinite."""
    return ms if math.isfinite(ms) else None


@dataclass(frozen=True)
class Control:
    """The control of one device's limit: what its latencies are, and a range of sensible limits in ms."""

    target: str
    kind: str
    low_ms: float
    high_ms: float
    step_ms: float
    limit_ms: float | None  # the study's own
    least: str  # the lowest limit that a trained network fits, in words; "" where none is trained


def control_of(columns: StudyColumns, target: str, inside: NDArray[np.bool_], limit: float | None) -> Control:
    """Return a device's control; `inside` (n,) are the trained networks that can be offered, `limit` is in ms."""
    latencies = columns.latencies[target]
    highs = latencies.high_ms[np.isfinite(latencies.high_ms)]
    trained = latencies.high_ms[inside & np.isfinite(latencies.high_ms)]
    ends = (trained if trained.size else highs).tolist() + ([] if limit is None else [limit])
    low, high = min(ends), max(ends)
    step = 10.0 ** math.floor(math.log10(max(high - low, high * 0.01) / 100))
    kinds = sorted({columns.latency_groups[group].kind for group in np.unique(latencies.group[latencies.group >= 0])})
    return Control(
        target=target,
        kind=" and ".join(kinds),
        low_ms=round(math.floor(0.9 * low / step) * step, 9),
        high_ms=round(math.ceil(1.05 * high / step) * step, 9),
        step_ms=round(step, 9),
        limit_ms=limit,
        least=_least(columns, latencies, inside),
    )


def _least(columns: StudyColumns, latencies: Latencies, inside: NDArray[np.bool_]) -> str:
    """Return the lowest limit that a network fits, with its kind: "0.2006 ms (measured)"; "" where there is none."""
    highs = np.where(inside & np.isfinite(latencies.high_ms), latencies.high_ms, np.inf)
    if not np.isfinite(highs).any():
        return ""
    row = int(highs.argmin())
    kind = columns.latency_groups[latencies.group[row]].kind
    return f"{digits_ms(_rounded_up(float(highs[row])), 4)} ms ({kind})"


def _rounded_up(ms: float) -> float:
    """Return a latency rounded up to four digits, so that it fits the limit that people read."""
    unit = 10.0 ** (math.floor(math.log10(ms)) - 3)
    return math.ceil(ms / unit - 1e-9) * unit


def offers_of(
    columns: StudyColumns, targets: Sequence[str], rows: Sequence[int], predictions: Mapping[int, Predictions]
) -> tuple[Offer, ...]:
    """Return the trained networks in some rows, best first, with their latencies on these devices.

    `predictions` of the validation images are by trial number, of those trials that have them.
    """
    numbers = [int(columns.number[row]) for row in rows]
    as_good = as_good_as(numbers, predictions) if columns.objective == "top1" else [()] * len(numbers)
    offers = (_offer_of(columns, targets, row) for row in rows)
    return tuple(
        replace(offer, as_good=as_good[place], remarks=_remarks(columns, offer.number, predictions.get(offer.number)))
        for place, offer in enumerate(offers)
    )


def _remarks(columns: StudyColumns, number: int, network: Predictions | None) -> tuple[str, ...]:
    found = remarks_of_study(columns.study.data_info, network, columns.objective, f"trial {number}")
    return tuple(one_line(text[:1].upper() + text[1:], 400) for text in found)


def _offer_of(columns: StudyColumns, targets: Sequence[str], row: int) -> Offer:
    devices = [columns.latencies[name] for name in targets]
    many = len(targets) > 1
    texts = [_latency_words(columns, latencies, row, many) for latencies in devices if latencies.group[row] >= 0]
    return Offer(
        number=int(columns.number[row]),
        high_ms=tuple(_ms_or_infinity(latencies, latencies.high_ms, row) for latencies in devices),
        median_ms=tuple(_ms_or_infinity(latencies, latencies.median_ms, row) for latencies in devices),
        kinds=tuple(kind_words(columns, latencies, row) for latencies in devices),
        groups=tuple(int(latencies.group[row]) for latencies in devices),
        score=float(columns.score[row]),
        macs=int(columns.macs[row]),
        params=int(columns.params[row]),
        name=f"trial {columns.number[row]} ({one_line(columns.config_text[row], 120)})",
        accuracy=_accuracy_words(columns, row),
        as_good=(),
        remarks=(),
        latency=" and ".join(texts),
    )


def _accuracy_words(columns: StudyColumns, row: int) -> str:
    """Return "94.61 % top-1 (95 % interval 93.9 % to 95.2 %)"; else "81.2 % macro-F1 (top-1 94.6 %)"."""
    top1 = float(columns.top1[row])
    if columns.objective != "top1":
        return f"{percent(float(columns.score[row]))} {columns.score_name} (top-1 {percent(top1)})"
    images = (columns.study.data_info or {}).get("validation_images")
    words = f"{percent(top1)} top-1"
    if isinstance(images, int) and images > 0:
        low, high = wilson_interval(top1, images)
        words += f" (95 % interval {percent(low, 1)} to {percent(high, 1)})"
    return words


def _ms_or_infinity(latencies: Latencies, values_ms: Floats, row: int) -> float:
    """Return a trial's ms; infinite where it has no latency on the device, so that it fits no limit there."""
    return float(values_ms[row]) if latencies.group[row] >= 0 else math.inf


def _latency_words(columns: StudyColumns, latencies: Latencies, row: int, with_device: bool) -> str:
    """Return "11.20 ms [11.1, 11.4] on pi5 (measured)"."""
    interval = f"[{digits_ms(latencies.low_ms[row], 4)}, {digits_ms(latencies.high_ms[row], 4)}]"
    place = f" on {latencies.target}" if with_device else ""
    kind = kind_words(columns, latencies, row)
    return f"{digits_ms(latencies.median_ms[row], 4)} ms {interval}{place} ({kind})"
