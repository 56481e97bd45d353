"""Measuring what is trained already: reprice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from commands.common import INTERRUPTED, AsJson, Storage, StudyName, output, say, store_named, stored_settings
from space.errors import MeasurementFailed, StudyBusy
from workers.wording import counted

if TYPE_CHECKING:
    from workers.latency.measurement import FailedMeasurement, Measurement


def reprice(
    study: StudyName = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device that the study doesn't have: host, virtual:PROFILE or a queue.", show_default=False),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Runtime there, or auto.", show_default="as on the study's first device")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="standard or quick.", show_default="the study's")] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure also what was measured there before.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Measure a study's trained networks on another device, without any training, and show the front there."""
    from dashboards.terminal import documents, trial_tables
    from search.launch import interruptible
    from search.pricing.repricing import reprice as measure
    from search.pricing.repricing import settings_on, trained_without
    from search.pricing.targets import choose_runtimes, targets_of
    from search.results.pareto import front_on
    from search.store.replayed import replayed_from
    from search.study_folders import files_root
    from workers.latency.measurement import FailedMeasurement, MeasurementStopped

    if device is None:
        raise typer.BadParameter("name the device to measure on", param_hint="--device")
    store, row, url = store_named(study, storage)
    if store.is_running():
        raise StudyBusy(f"study {row.name!r} is being run, and both would disturb each other; stop it first.")
    settings = stored_settings(row)
    files = files_root(settings, url)
    settings = choose_runtimes(settings_on(settings, device, runtime, policy), store.engine, files, say)
    (target,) = targets_of(settings, store.engine, files, say)
    rows = trained_without(store.trials(), device, again)
    failed = 0
    with interruptible(lambda: say("stopping; what was measured is recorded")) as stop:
        try:
            for done, repriced in enumerate(measure(store, rows, target, files, stop.is_set), start=1):
                failed += isinstance(repriced.latency, FailedMeasurement)
                say(f"{done} of {len(rows)}: trial {repriced.number}: {_words(repriced.latency)}")
        except MeasurementStopped:
            raise typer.Exit(INTERRUPTED) from None
    if failed == len(rows) and rows:
        raise MeasurementFailed(f"none of {counted(len(rows), 'network')} could be measured on {device}.")
    front = front_on(store.engine, row, device)
    output(as_json, documents.front_document, trial_tables.pareto_table, front, replayed_from(row.settings))


def _words(latency: Measurement | FailedMeasurement) -> str:
    from search.results.latency_labels import doubts_text
    from workers.latency.measurement import FailedMeasurement

    if isinstance(latency, FailedMeasurement):
        return f"not measured: {latency.reason}"
    return f"{latency.median_ms:.4g} ms ({latency.kind}{doubts_text(latency)})"
