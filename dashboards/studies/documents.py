"""The list of studies, and a comparison of several, as plain JSON values: for page, report and `--json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dashboards.budget.controls import finite
from dashboards.data.study_settings import budget_text, dataset_text
from dashboards.formats import NOTHING, count, digits_ms, moment, one_line, percent
from dashboards.studies.fronts import NETWORK_HEADERS, Comparison, Network, StudyFront, interval_text, token_of
from dashboards.studies.overview import Summary
from search.store.replayed import replayed_from, replayed_words

BEST_HEADERS = ("study", *NETWORK_HEADERS)
POINT_HEADERS = ("study", *NETWORK_HEADERS[:4], "front of all", *NETWORK_HEADERS[4:])


def summary_document(summary: Summary) -> dict[str, Any]:
    """Return one study of the list; times are UTC seconds since 1970, `*_text` is for people."""
    study, best = summary.study, summary.best
    latency = None if best is None or math.isinf(best.latency_ms) else best.latency_ms
    retrains = (study.settings.get("study") or {}).get("retrains")
    said = (
        dataset_text(study, 80, ""),
        replayed_words(replayed_from(study.settings)),
        "" if retrains is None else f"trains {one_line(retrains, 80)} again",
    )
    return {
        "name": study.name,
        "shown": one_line(study.name, 100),
        "state": str(summary.state),
        "state_note": summary.state_note,
        "trials": summary.activity.trials,
        "trainings": summary.activity.trainings,
        "wanted": summary.wanted,
        "newest_at": summary.activity.newest_at,
        "created_at": study.created_at,
        "created_text": f"{moment(study.created_at)} UTC",
        "data": ", ".join(filter(None, said)),
        "budget": budget_text(study.settings),
        "devices": ", ".join(one_line(device, 60) for device in summary.devices),
        "best": None
        if best is None
        else {
            "number": best.number,
            "score": best.score,
            "score_text": f"{percent(best.score)} {best.score_name}",
            "latency_ms": latency,
            "latency_text": "" if latency is None else f"{digits_ms(latency, 4)} ms",
            "latency_note": best.latency,
            "macs_text": count(best.macs),
            "params_text": count(best.params),
        },
        "why_none": summary.why_none,
        "next": summary.step.command,
        "next_note": summary.step.note,
        "is_read": summary.is_read,
    }


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison: the studies with the networks that are best inside some limit, and all fronts as a table."""
    unit, scale = unit_of(comparison)
    return {
        "axis": comparison.view.axis,
        "view": token_of(comparison.view),
        "view_text": comparison.view.name,
        "views": [{"token": token_of(view), "text": view.name} for view in comparison.views],
        "score_name": comparison.score_name,
        "unit": unit,
        "scale": scale,
        "limit": comparison.limit,
        "range": range_of(comparison),
        "reason": comparison.reason,
        "doubts": list(comparison.doubts),
        "studies": [_study_document(study) for study in comparison.studies],
        "headers": [comparison.score_name if header == "score" else header for header in POINT_HEADERS],
        "points": [list(row) for row in point_rows(comparison.studies)],
    }


def point_rows(studies: Sequence[StudyFront]) -> list[tuple[str, ...]]:
    """Return the networks of all fronts as lines of a table, the cheapest first; see `POINT_HEADERS`."""
    pairs = [(study.name, network) for study in studies for network in study.front]
    pairs.sort(key=lambda pair: (pair[1].cost, -pair[1].score))
    rows = [(network.cells(), "yes" if network.on_combined else "", name) for name, network in pairs]
    return [(name, *cells[:4], on_combined, *cells[4:]) for cells, on_combined, name in rows]


def best_rows(comparison: Comparison, limit: float | None) -> list[tuple[str, ...]]:
    """Return the best of each study inside a limit as lines of a table; see `BEST_HEADERS`."""
    none = (NOTHING,) * len(NETWORK_HEADERS)
    bests = [(study, study.best(limit)) for study in comparison.studies]
    return [(study.name, *(none if best is None else best.cells())) for study, best in bests]


def unit_of(comparison: Comparison) -> tuple[str, float]:
    """Return the unit that costs are shown in, and how many macs or params one of it is: ("ms", 1), ("M", 1e6)."""
    if comparison.view.axis == "latency":
        return "ms", 1.0
    most = max((network.cost for study in comparison.studies for network in study.front), default=0.0)
    name, scale = ("M", 1e6) if most >= 1e6 else ("k", 1e3) if most >= 1e3 else ("", 1.0)
    return f"{name} {comparison.view.axis}".strip(), scale


def range_of(comparison: Comparison) -> list[float] | None:
    """Return the lowest and the highest limit that makes a difference; None where nothing can be limited."""
    highs = [offer.high for study in comparison.studies for offer in study.offers if math.isfinite(offer.high)]
    return [0.95 * min(highs), 1.05 * max(highs)] if highs else None


def _study_document(study: StudyFront) -> dict[str, Any]:
    return {
        "name": study.name,
        "refusal": study.refusal,
        "trained": study.trained,
        "on_front": len(study.front),
        "on_combined": study.on_combined,
        "offers": [_network_document(offer) for offer in study.offers],
    }


def _network_document(network: Network) -> dict[str, Any]:
    return {
        "number": network.number,
        "score": network.score,
        "score_text": percent(network.score),
        "interval": network.interval,
        "interval_text": interval_text(network.interval),
        "cost": network.cost,
        "high": finite(network.high),
        "latency_text": network.latency,
        "kind": network.kind,
        "macs": network.macs,
        "macs_text": count(network.macs),
        "params": network.params,
        "params_text": count(network.params),
        "config": network.config,
    }
