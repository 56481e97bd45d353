"""What `pick` answers, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from dashboards.formats import NOTHING, latency_label, one_line, percent, threads_text
from dashboards.terminal.documents import latency_document, plain, trial_document
from dashboards.terminal.tables import facts_table, plain_table, with_reasons
from search.results.class_figures import split_document
from space.config import code_legend
from workers.metrics import METRICS, NAMES
from workers.wording import counted

if TYPE_CHECKING:
    from search.results.picking.budgets import BudgetAnswer
    from search.results.picking.picked import Picked
    from search.results.remarks import Seen
    from workers.latency.record import LatencyRecord, LatencyStatistic


def picked_panel(picked: Picked, folder: Path | None) -> RenderableType:
    """Return what `pick` shows: the network, its accuracy, its latency, and where its bundle is."""
    row, measurement = picked.trial, picked.verified
    networks = counted(picked.candidates, "trained network")
    facts: list[tuple[str, str | Text]] = [
        ("pick", f"trial {row.number}: {row.config}"),
        ("", Text(code_legend([str(row.config)]), style="dim")),
        ("test top-1", f"{picked.test_top1:.2%} ({_validation_words(picked)})"),
        *_further_scores(picked.seen, picked.retrains is None),
        ("latency", _latency_line(measurement)),
        (
            "on",
            f"{one_line(measurement.device)}, {measurement.runtime} {measurement.runtime_version}, "
            f"{threads_text(measurement.threads)}",
        ),
        *(("and", f"{_latency_line(other)} on {one_line(other.device)}") for other in picked.elsewhere.values()),
        ("cost", f"{row.macs:,} macs, {row.params:,} params"),
        ("budget", f"{picked.budget}; the best of {networks} inside it"),
    ]
    facts += [("memory", text) for text in _resources(measurement)]
    facts += [("why" if place == 0 else "", text) for place, text in enumerate(picked.reasons)]
    facts += [("not verified", text) for text in picked.undecided]
    facts += [("not steady", text) for text in picked.unsteady]
    facts += [("passed over", text) for text in picked.passed_over]
    facts += [("as good", text) for text in picked.as_good]
    facts += [("note", text) for text in picked.seen.remarks]
    if folder is not None:
        facts.append(("bundle", Text(str(folder))))
    return facts_table(facts)


def _validation_words(picked: Picked) -> str:
    if picked.retrains is not None:
        return "it has learned from the validation images"
    return f"validation {picked.trial.top1 or 0.0:.2%}"


def _further_scores(seen: Seen, validated_too: bool) -> Iterator[tuple[str, str]]:
    """Yield every figure but top-1 of both splits."""
    of_split = {split: predictions.metrics() for split, predictions in seen.splits.items()}
    tested, validated = of_split.get("test", {}), of_split.get("validation", {}) if validated_too else {}
    for name in METRICS[1:]:
        if (value := tested.get(name)) is not None:
            before = validated.get(name)
            yield f"test {NAMES[name]}", f"{value:.2%}" + ("" if before is None else f" (validation {before:.2%})")


def _resources(latency: LatencyRecord) -> Iterator[str]:
    """Yield what running the network takes beside time, as far as it is known."""
    if latency.peak_memory_mb is not None:
        energy = "" if latency.energy_mj is None else f"; {latency.energy_mj:.3g} mJ a run, of the whole machine"
        yield f"{latency.peak_memory_mb:.1f} MB at most, with {latency.runtime} and Python{energy}"


def _latency_line(latency: LatencyRecord) -> str:
    return f"{latency.median_ms:.4g} ms, up to {latency.interval_high_ms:.4g} ({latency_label(latency)})"


def picked_document(picked: Picked, folder: Path | None) -> dict[str, Any]:
    """Return `pick` as plain JSON values; the latency is the verification's."""
    return {
        "trial": trial_document(picked.trial),
        "retrains": picked.retrains,
        "test_top1": plain(picked.test_top1),
        "test_evaluations_of_study": picked.test_evaluations,
        "budget": plain(vars(picked.budget)),
        "candidates": picked.candidates,
        "reasons": list(picked.reasons),
        "passed_over": list(picked.passed_over),
        "unsteady": list(picked.unsteady),
        "undecided": list(picked.undecided),
        "as_good_within_noise": list(picked.as_good),
        "remarks": list(picked.seen.remarks),
        "splits": plain(
            {name: split_document(one, picked.seen.class_names) for name, one in picked.seen.splits.items()}
        ),
        "verified_latency": latency_document(picked.verified.record),
        "verified_elsewhere": {
            name: latency_document(measurement.record) for name, measurement in picked.elsewhere.items()
        },
        "export_difference": plain(picked.export_difference),
        "bundle": None if folder is None else str(folder),
    }


def budgets_table(answers: Sequence[BudgetAnswer]) -> RenderableType:
    """Return the network for each budget, a line each, and below why it, or why none."""
    statistics = {answer.latency_statistic for answer in answers} - {"upper"}
    held = "up to" if not statistics else statistics.pop()
    table = plain_table(
        ">#", "device", ">limit, ms", ">trial", ">score", ">latency, ms", f">{held}", "~kind", ">params"
    )
    for place, answer in enumerate(answers, start=1):
        row = answer.row
        latency = None if row is None else row.latencies.get(answer.device)
        cells = (
            ["none", "", "", "", "", ""]
            if row is None
            else [
                str(row.number),
                percent(row.score),
                *(
                    ("", "", "")
                    if latency is None
                    else (f"{latency.median_ms:.4g}", _held(latency, answer.latency_statistic), latency_label(latency))
                ),
                f"{row.params:,}",
            ]
        )
        table.add_row(str(place), one_line(answer.device), f"{answer.limit_ms:g}", *cells)
    reasons = [(str(place), answer.reason or answer.runner_up) for place, answer in enumerate(answers, start=1)]
    return with_reasons(table, [(place, text) for place, text in reasons if text], ">#")


def _held(latency: LatencyRecord, statistic: LatencyStatistic) -> str:
    """Return the figure of a latency that keeps its limit, in ms."""
    figure_ms = latency.judged_ms(statistic)
    return NOTHING if figure_ms is None else f"{figure_ms:.4g}"


def budgets_document(answers: Sequence[BudgetAnswer]) -> dict[str, Any]:
    """Return `pick --budgets` as plain JSON values."""
    return {
        "budgets": [
            {
                "device": answer.device,
                "limit_ms": answer.limit_ms,
                "latency_statistic": answer.latency_statistic,
                "candidates": answer.candidates,
                "trial": None if answer.row is None else trial_document(answer.row),
                "runner_up": answer.runner_up or None,
                "reason": answer.reason or None,
            }
            for answer in answers
        ]
    }
