"""Handing networks out: pick, export."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from commands.common import (
    AsJson,
    Storage,
    StudyName,
    TrialNumber,
    open_named,
    print_json,
    say,
    show_text,
    store_named,
    stored_settings,
)
from space.errors import InvalidSettings

LatencyLimits = Annotated[
    list[str] | None,
    typer.Option("--max-latency-ms", metavar="MS|DEVICE=MS", help="Limit of the latency; again for another device."),
]


def _limits_by_device(given: Sequence[str], devices: Sequence[str]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for text in given:
        device, _, number = text.rpartition("=")
        try:
            limit_ms = float(number)
        except ValueError:
            limit_ms = math.nan
        if not 0 < limit_ms < math.inf:
            raise InvalidSettings(f"--max-latency-ms must be a number > 0 or DEVICE=number, but got {text!r}.")
        if device and device not in devices:
            raise InvalidSettings(f"--max-latency-ms {text}: the study's devices are {', '.join(devices)}.")
        limits[device or devices[0]] = limit_ms
    return limits


def pick(
    study: StudyName = None,
    max_latency_ms: LatencyLimits = None,
    max_macs: Annotated[int | None, typer.Option(min=1, help="Limit of the multiply-adds.")] = None,
    max_params: Annotated[int | None, typer.Option(min=1, help="Limit of the parameters.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the bundle to deploy into this folder.")] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only rank: no second measurement, the test split stays untouched.")
    ] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Pick the most accurate network inside a budget, verify it, test it once, and write it out.

    Limits that are not given are the study's own.
    """
    from dashboards import answers, documents, tables
    from search.pick import best
    from search.store import reader

    engine, found, url = open_named(study, storage)
    settings = stored_settings(found)
    budget = settings.search_budget()
    limits = _limits_by_device(max_latency_ms or (), settings.latency.devices)
    budget = replace(
        budget,
        max_latency_ms=limits.pop(settings.latency.devices[0], budget.max_latency_ms),
        max_macs=max_macs or budget.max_macs,
        max_params=max_params or budget.max_params,
        elsewhere_ms={**budget.elsewhere_ms, **limits},
    )
    ranked = best(reader.read_trials(engine, found.id), budget)
    if preview:
        if as_json:
            print_json(documents.trials_document(ranked))
        else:
            show_text(tables.trials_table(ranked))
        return
    from search import bundle
    from search.devices.probe import VERIFYING
    from search.launch import cache_folder, files_root
    from search.targets import targets_of

    store, found, url = store_named(study, storage)
    targets = targets_of(settings, store.engine, files_root(settings, url), say, VERIFYING)
    picked = bundle.pick(store, found, budget, targets, cache_folder(settings, url))
    folder = None if out is None else bundle.write_bundle(store, found, picked, out)
    if as_json:
        print_json(answers.picked_document(picked, folder))
    else:
        show_text(answers.picked_panel(picked, folder))


def export(
    trial: TrialNumber,
    study: StudyName = None,
    out: Annotated[Path, typer.Option(help="A file, or a folder that gets model.onnx.")] = Path("model.onnx"),
    storage: Storage = None,
) -> None:
    """Write one finished trial's network as ONNX."""
    from search.bundle import export_trial
    from search.store import reader
    from search.store.store import StudyStore

    engine, found, _ = open_named(study, storage)
    row = reader.find_trial(engine, found, trial)
    show_text(f"wrote {export_trial(StudyStore(engine, found.id), row, out)}")
