"""The networks that an answer can name, with all that a card says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.budget.badges import badges_of
from dashboards.budget.controls import finite
from dashboards.budget.noise import likeness
from dashboards.budget.recorded import Recorded
from dashboards.data.columns import Floats, Latencies, StudyColumns
from dashboards.data.latency_marks import kind_words
from dashboards.formats import NOTHING, count, digits_ms, ends_text, one_line, percent
from search.results.latency_labels import doubts
from search.results.picking.verification import held_ms
from search.results.remarks import remarks_of_study
from workers.latency.record import STATISTICS, LatencyRecord, LatencyStatistic
from workers.latency.record import kind_words as kind_of
from workers.metrics import Predictions, wilson_interval


@dataclass(frozen=True)
class Offer:
    """A network that an answer can name; latencies in ms, on the devices of its table."""

    number: int
    held_ms: Mapping[LatencyStatistic, tuple[float, ...]]  # what must fit a budget; infinite where it isn't known
    median_ms: tuple[float, ...]  # where charts show it
    kinds: tuple[str, ...]  # what each latency is: "measured", "predicted, extrapolated"; "" where there is none
    groups: tuple[int, ...]  # of each latency, as index into `StudyColumns.latency_groups`; -1: no latency
    score: float
    macs: int
    params: int
    code: str  # "14-14-14 growth 8-16-32 G=4 C=4 B=4"
    accuracy: str  # "94.61 % top-1 (95 % interval 93.9 % to 95.2 %)"
    interval: str  # "93.9 % to 95.2 %"; "" where it isn't known
    latency: str  # "11.20 ms [11.1, 11.4] (measured)", of each device
    figures: tuple[Mapping[str, str], ...]  # of each latency: "kind", "median", "interval" and "p90" in words
    badges: tuple[str, ...]  # see `budget.badges`
    remarks: tuple[str, ...]  # what speaks against its accuracy, see `search.results.remarks`
    verified: tuple[Mapping[str, Mapping[str, Any]], ...]  # by device, what `pick` found: by statistic, "ms" and "text"
    tested: Mapping[str, str]  # "value" and "images" in words; {} where it wasn't
    file: str  # how large its ONNX file is; "" where there is none
    memory: str  # the most that the measuring process held; "" where it isn't known
    as_good: tuple[int, ...] = ()  # places in the table of the offers that it is as good as within noise
    paired: bool = False  # whether it is compared with others image by image, where their predictions are known too

    @property
    def name(self) -> str:
        """What sentences call it: "trial 7 (14-14-14 growth 8-16-32 G=4 C=4 B=4)"."""
        return f"trial {self.number} ({self.code})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with the texts that page and report show; an infinite latency is null."""
        return {
            **vars(self),
            "held_ms": {name: [finite(ms) for ms in held] for name, held in self.held_ms.items()},
            "median_ms": [finite(ms) for ms in self.median_ms],
            "tested": self.tested or None,
            "score_text": percent(self.score),
            "macs_text": count(self.macs),
            "params_text": count(self.params),
        }


def offers_of(
    columns: StudyColumns,
    targets: Sequence[str],
    rows: Sequence[int],
    recorded: Recorded,
    statistics: Sequence[LatencyStatistic],
) -> tuple[Offer, ...]:
    """Return the trained networks in some rows, best first, with their latencies on these devices."""
    numbers = [int(columns.number[row]) for row in rows]
    as_good: Sequence[tuple[int, ...]] = [()] * len(numbers)
    paired: Sequence[bool] = [False] * len(numbers)
    if columns.objective == "top1":
        alike = likeness(numbers, columns.top1[rows].tolist(), columns.validation_images, recorded.predictions)
        as_good, paired = alike.as_good, alike.paired
    maker = _Maker(columns, targets, recorded, statistics)
    return tuple(maker.offer(row, others, by) for row, others, by in zip(rows, as_good, paired, strict=True))


@dataclass(frozen=True)
class _Maker:
    columns: StudyColumns
    targets: Sequence[str]
    recorded: Recorded
    statistics: Sequence[LatencyStatistic]

    def offer(self, row: int, as_good: tuple[int, ...], paired: bool) -> Offer:
        columns, number = self.columns, int(self.columns.number[row])
        devices = [columns.latencies[name] for name in self.targets]
        known = [latencies for latencies in devices if latencies.group[row] >= 0]
        records = [record for target in self.targets if (record := self._record(row, target)) is not None]
        interval = _interval(columns, row)
        return Offer(
            number=number,
            held_ms={
                name: tuple(_ms_or_infinity(one, one.held_ms[name], row) for one in devices) for name in self.statistics
            },
            median_ms=tuple(_ms_or_infinity(latencies, latencies.median_ms, row) for latencies in devices),
            kinds=tuple(kind_words(columns, latencies, row) for latencies in devices),
            groups=tuple(int(latencies.group[row]) for latencies in devices),
            score=float(columns.score[row]),
            macs=int(columns.macs[row]),
            params=int(columns.params[row]),
            code=one_line(columns.config_text[row], 120),
            accuracy=_accuracy_words(columns, row, interval),
            interval=interval,
            latency=" and ".join(self._latency_words(row, latencies) for latencies in known),
            figures=tuple(self._figures(row, latencies) for latencies in devices),
            badges=badges_of(records, math.isfinite(columns.test_top1[row])),
            remarks=_remarks(columns, number, self.recorded.predictions.get(number)),
            verified=tuple(_verified(columns.verified.get((row, target))) for target in self.targets),
            tested=_tested(columns, row),
            file=_megabytes(self.recorded.file_bytes.get(number)),
            memory=_memory(records),
            as_good=as_good,
            paired=paired,
        )

    def _record(self, row: int, target: str) -> LatencyRecord | None:
        """Return the latency to show on a device, with all its labels: the verification, else the price."""
        verified = self.columns.verified.get((row, target))
        return verified or self.recorded.prices.get(int(self.columns.number[row]), {}).get(target)

    def _figures(self, row: int, latencies: Latencies) -> dict[str, str]:
        """Return a latency's figures in words; those of the verification, where there is one."""
        verified = self.columns.verified.get((row, latencies.target))
        if verified is not None:
            p90, median_ms = verified.p90_ms, verified.median_ms
            low_ms, high_ms = verified.interval_low_ms, verified.interval_high_ms
            doubtful = doubts(False, verified.steady, verified.extrapolates)
            kind = ", ".join([kind_of(verified), "verified", *doubtful])
        else:
            p90, median_ms = float(latencies.p90_ms[row]), float(latencies.median_ms[row])
            low_ms, high_ms = float(latencies.low_ms[row]), float(latencies.high_ms[row])
            kind = kind_words(self.columns, latencies, row)
        if not math.isfinite(median_ms):
            return {"median": NOTHING, "interval": "", "p90": "", "kind": ""}
        return {
            "kind": kind,
            "median": f"{digits_ms(median_ms, 4)} ms",
            "interval": ends_text(low_ms, high_ms),
            "p90": "" if p90 is None or not math.isfinite(p90) else digits_ms(p90, 4),
        }

    def _latency_words(self, row: int, latencies: Latencies) -> str:
        """Return "11.20 ms [11.1, 11.4] on pi5 (measured)"."""
        figures, place = self._figures(row, latencies), f" on {latencies.target}" if len(self.targets) > 1 else ""
        return f"{figures['median']} {figures['interval']}{place} ({figures['kind']})"


def _remarks(columns: StudyColumns, number: int, network: Predictions | None) -> tuple[str, ...]:
    found = remarks_of_study(columns.study.data_info, network, columns.objective, f"trial {number}")
    return tuple(one_line(text[:1].upper() + text[1:], 400) for text in found)


def _interval(columns: StudyColumns, row: int) -> str:
    """Return the 95 % interval of top-1 in words; "" where it isn't known how many images there are."""
    images = columns.validation_images
    if columns.objective != "top1" or images is None:
        return ""
    low, high = wilson_interval(float(columns.top1[row]), images)
    return f"{percent(low, 1)} to {percent(high, 1)}"


def _accuracy_words(columns: StudyColumns, row: int, interval: str) -> str:
    """Return "94.61 % top-1 (95 % interval 93.9 % to 95.2 %)"; else "81.2 % macro-F1 (top-1 94.6 %)"."""
    top1 = float(columns.top1[row])
    if columns.objective != "top1":
        return f"{percent(float(columns.score[row]))} {columns.score_name} (top-1 {percent(top1)})"
    return f"{percent(top1)} top-1" + (f" (95 % interval {interval})" if interval else "")


def _verified(record: LatencyRecord | None) -> dict[str, dict[str, Any]]:
    """Return what is held against a limit of a verification, by statistic; {} where there is none."""
    if record is None:
        return {}
    figures = ((name, held_ms(record, name)) for name in STATISTICS)
    return {name: {"ms": ms, "text": f"{digits_ms(ms, 4)} ms"} for name, ms in figures}


def _tested(columns: StudyColumns, row: int) -> dict[str, str]:
    """Return top-1 and on how many images, in words; {} where it wasn't tested."""
    top1 = float(columns.test_top1[row])
    if not math.isfinite(top1):
        return {}
    images = (columns.study.data_info or {}).get("test_images")
    known = isinstance(images, int) and images > 0
    return {"value": percent(top1), "images": f"of {images:,} images" if known else "of the test split"}


def _megabytes(size: int | None) -> str:
    """Return the size of a file: "0.41 MB", "23.1 kB" (10^3 and 10^6 bytes); "" where there is none."""
    if size is None:
        return ""
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _memory(records: Sequence[LatencyRecord]) -> str:
    peaks_mb = [record.peak_memory_mb for record in records if record.peak_memory_mb is not None]
    return f"{max(peaks_mb):.1f} MB" if peaks_mb else ""


def _ms_or_infinity(latencies: Latencies, values_ms: Floats, row: int) -> float:
    """Return a trial's ms; infinite where it isn't known on the device, so that it fits no limit there."""
    ms = float(values_ms[row])
    return ms if latencies.group[row] >= 0 and math.isfinite(ms) else math.inf
