"""Handing networks out: pick, export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from commands.common import (
    AsJson,
    LatencyLimits,
    Storage,
    StudyName,
    TrialNumber,
    limits_by_device,
    open_named,
    print_json,
    say,
    show_text,
    store_named,
    stored_settings,
)


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
    from dashboards.terminal import answers, documents, trial_tables
    from search.results.pick import best
    from search.store import reader

    engine, found, url = open_named(study, storage)
    settings = stored_settings(found)
    budget = settings.search_budget()
    devices = settings.latency.devices
    budget = budget.with_limits_ms(limits_by_device(max_latency_ms or (), devices), devices[0])
    budget = replace(budget, max_macs=max_macs or budget.max_macs, max_params=max_params or budget.max_params)
    ranked = best(reader.read_trials(engine, found.id), budget)
    if preview:
        if as_json:
            print_json(documents.trials_document(ranked))
        else:
            show_text(trial_tables.trials_table(ranked))
        return
    from search.devices.probe import VERIFYING
    from search.launch import cache_folder, files_root
    from search.pricing.targets import targets_of
    from search.results import bundle

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
    from search.results.bundle import export_trial
    from search.store import reader
    from search.store.store import StudyStore

    engine, found, _ = open_named(study, storage)
    row = reader.find_trial(engine, found, trial)
    show_text(f"wrote {export_trial(StudyStore(engine, found.id), row, out)}")
