"""Measuring what is trained already: reprice, quantize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from commands.common import INTERRUPTED, AsJson, Storage, StudyName, output, say, store_named, stored_settings
from space.errors import InvalidSettings, MeasurementFailed, StudyBusy, TrialNotFound, TrialNotReady
from workers.file_names import Precision
from workers.wording import counted

if TYPE_CHECKING:
    from search.store.rows import TrialRow
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


def quantize(
    study: StudyName = None,
    trials: Annotated[
        str | None, typer.Option(help="Numbers of trials, such as 3,12.", show_default="those on the front")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="int8, calibrated on training images; or fp16, of ncnn and litert.")
    ] = "int8",
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Put trained networks into 8 (or 16) bits, measure their files on the study's devices, and say where they win.

    They are recorded as points of their own, with the accuracy and the latency of the files.
    """
    import tempfile
    from pathlib import Path

    from dashboards.terminal.point_tables import points_document, points_table
    from search.devices.probe import VERIFYING
    from search.pricing.targets import targets_of
    from search.results.points import quantize as measure
    from search.results.replayed import refuse_replayed
    from search.results.winning import winning
    from search.store import reader
    from search.store.connection.printed_commands import database_words
    from search.study_folders import cache_folder, files_root, refuse_absent, study_files
    from workers.latency.measurement import FailedMeasurement

    if precision == "fp32":
        raise InvalidSettings("a network is trained in fp32 already; name int8 or fp16.")
    store, row, url = store_named(study, storage)
    settings, rows = stored_settings(row), store.trials()
    chosen = _chosen(rows, trials)
    refuse_replayed(row, chosen[0], database_words(url))
    refuse_absent(study_files(settings, url))
    targets = targets_of(settings, store.engine, files_root(settings, url), say, VERIFYING)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="quantize-") as scratch:
        made = measure(store, row, chosen, targets, cache_folder(settings, url), Path(scratch), say, precision)
        for one in made:
            say(f"trial {one.file.trial.number} on {one.target}: {_words(one.latency)}; {one.file.words}")
            failed += isinstance(one.latency, FailedMeasurement)
    points = reader.read_points(store.engine, store.study_id)
    if failed and not points:
        raise MeasurementFailed(f"none of {counted(failed, 'file')} in {precision} could be measured.")
    output(as_json, points_document, points_table, points, rows, winning(points, rows))


def _chosen(rows: Sequence[TrialRow], numbers: str | None) -> Sequence[TrialRow]:
    """Return the trials of these numbers, or else those on the front.

    Raises:
        InvalidSettings: it is no list of numbers. TrialNotFound: the study has no such trial.
        TrialNotReady: one has not been trained, or none has.
    """
    from search.results.pareto import pareto_front

    if numbers is None:
        front = pareto_front(rows)
        if not front:
            raise TrialNotReady("no trial has a trained network with a latency yet; launch the study first.")
        return front
    by_number = {row.number: row for row in rows}
    chosen = []
    for word in numbers.split(","):
        if not word.strip().isdecimal():
            raise InvalidSettings(f"--trials must be numbers such as 3,12, but got {numbers!r}.")
        if (row := by_number.get(int(word))) is None:
            raise TrialNotFound(f"the study has no trial {int(word)}; `condensery trials` lists them.")
        if row.score is None:
            raise TrialNotReady(f"trial {row.number} is {row.state}; only a done trial has a network.")
        chosen.append(row)
    return chosen


def _words(latency: Measurement | FailedMeasurement) -> str:
    from search.results.latency_labels import doubts_text
    from workers.latency.measurement import FailedMeasurement

    if isinstance(latency, FailedMeasurement):
        return f"not measured: {latency.reason}"
    return f"{latency.median_ms:.4g} ms ({latency.kind}{doubts_text(latency)})"
