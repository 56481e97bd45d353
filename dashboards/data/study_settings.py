"""What a study's settings say: its devices and limits, its images, and all settings in a form that may be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboards.formats import NOTHING, count, is_number, milliseconds, moment, one_line
from search.budget import Budget
from search.results.replayed import training_command
from search.store import reader
from search.store.replayed import replayed_from, replayed_words
from search.store.rows import StudyRow
from workers.metrics import NAMES


def public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's settings with the password of its database hidden: they may be shown or sent to others."""
    public = dict(settings)
    part = public.get("study")
    if isinstance(part, Mapping) and part.get("storage"):
        public["study"] = {**part, "storage": _without_password(str(part["storage"]))}
    return public


def _without_password(url: str) -> str:
    import sqlalchemy as sa

    from search.store.connection.database_errors import url_shown

    try:
        sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return "(not a database URL)"
    return url_shown(url)


def devices_of(settings: Mapping[str, Any]) -> list[str]:
    """Return the devices that a study names, first the one its trials are judged by; a damaged row names the host."""
    latency = settings.get("latency")
    return list((latency.get("devices") if isinstance(latency, Mapping) else None) or ["host"])


def search_of(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how a study is searched; nothing of a damaged row."""
    part = settings.get("search")
    return part if isinstance(part, Mapping) else {}


def budget_of(settings: Mapping[str, Any]) -> Budget:
    """Return the limits a study was searched under; a limit that isn't a number (a damaged row) counts as none."""
    part = settings.get("budget")
    if not isinstance(part, Mapping):
        return Budget()
    limit = part.get("max_latency_ms")
    if isinstance(limit, Mapping):
        limit = {name: value for name, value in limit.items() if is_number(value)}
    elif not is_number(limit):
        limit = None
    counts = {name: part[name] for name in ("max_macs", "max_params") if is_number(part.get(name))}
    of = {"max_latency_ms": limit, **counts, "latency_statistic": part.get("latency_statistic")}
    return Budget.of_settings(of, devices_of(settings))


def budget_text(settings: Mapping[str, Any]) -> str:
    """Return a study's limits in words."""
    budget = budget_of(settings)
    words, of = [], "latency" if budget.latency_statistic == "upper" else f"latency's {budget.latency_statistic}"
    if budget.max_latency_ms is not None:
        words.append(f"{of} {milliseconds(budget.max_latency_ms)}")
    words += [f"{of} {milliseconds(limit)} on {device}" for device, limit in budget.elsewhere_ms.items()]
    limits = (("macs", budget.max_macs), ("params", budget.max_params))
    words += [f"{name} {count(limit)}" for name, limit in limits if limit is not None]
    return ", ".join(words) or "none"


def dataset_text(study: StudyRow, longest: int = 60, nothing: str = NOTHING) -> str:
    """Return the name of a study's data set as one line; `nothing` if the settings have none."""
    name = (study.settings.get("data") or {}).get("dataset")
    return one_line((study.data_info or {}).get("dataset") or name or nothing, longest)


def study_subtitle(study: StudyRow) -> str:
    """Return the line below a study's name: "Digits · budget: latency 0.4 ms · begun 2026-01-31 13:05 UTC".

    It says so if the study was replayed: nothing of it was trained or measured; and what it maximises instead of top-1.
    """
    replayed = replayed_words(replayed_from(study.settings))
    data, budget = dataset_text(study, 80, ""), f"budget: {budget_text(study.settings)}"
    objective = reader.objective_of(study.settings)
    score = "" if objective == "top1" else f"maximises {NAMES[objective]}"
    return " · ".join(filter(None, (data, replayed, score, budget, f"begun {moment(study.created_at)} UTC")))


def instead_of_pick(study: StudyRow, command_words: str = "") -> dict[str, str] | None:
    """Return what a page offers where `pick` can't work, since the study was replayed; None where it can.

    `note` says so, and `command`, in which {trial} stands for a trial's number, trains that one for real;
    `command_words` name the database in it.
    """
    table = replayed_from(study.settings)
    if table is None:
        return None
    note = f"{replayed_words(table)}: nothing was trained here, so there is no network to hand over."
    note += " This command trains the recommended one for real."
    return {"note": note[:1].upper() + note[1:], "command": training_command(study.name, "{trial}", command_words)}
