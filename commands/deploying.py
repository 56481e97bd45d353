"""Deploying: pick the network to deploy, or export any trained one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.common import (
    INTERRUPTED,
    AsJson,
    LatencyLimits,
    Statistic,
    Storage,
    StudyName,
    TrialNumber,
    console,
    database_url,
    limits_by_device,
    open_named,
    output,
    say,
    settings_for_device,
    show_written,
    store_named,
    stored_settings,
)
from commands.opened import Opened
from search.results.bundle.options import BundleOptions
from search.results.picking.wish import Wish
from search.store.connection.printed_commands import database_words
from space.errors import InvalidSettings, NothingFeasible
from workers.file_names import Precision, Runtime, file_for, stem_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.budget import Budget
    from search.results.bundle.verifying import BundleReport
    from search.results.picking.picked import Picked
    from search.store.rows import StudyRow, TrialRow
    from workers.export.pixels import PixelInput

Bake = Annotated[
    bool,
    typer.Option(
        "--bake-preprocessing",
        help="Write model files that take whole pixels and scale them themselves.",
    ),
]


def pick(
    study: StudyName = None,
    max_latency_ms: LatencyLimits = None,
    latency_statistic: Statistic = None,
    device: Annotated[
        str | None,
        typer.Option(help="Judge by a device that the study was repriced on.", show_default="the study's own"),
    ] = None,
    max_macs: Annotated[int | None, typer.Option(min=1, help="Most multiply-adds allowed.")] = None,
    max_params: Annotated[int | None, typer.Option(min=1, help="Most parameters allowed.")] = None,
    max_file_mb: Annotated[float | None, typer.Option(min=1e-6, help="Largest model file allowed, in MB.")] = None,
    max_ram_mb: Annotated[
        float | None, typer.Option(min=1e-6, help="Most memory that the process which runs it may take, in MB.")
    ] = None,
    trial: Annotated[int | None, typer.Option(min=0, help="Pick this trial.")] = None,
    within: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Pick the fastest network that is at most so many points below the best."),
    ] = None,
    smallest: Annotated[
        bool, typer.Option("--smallest", help="With --within: the one with the fewest parameters instead.")
    ] = False,
    budgets: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MS,MS|DEVICE=MS,MS", help="Show the network for each of these latency limits; may be repeated."
        ),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="fp32; or int8, fp16: among the networks that `quantize` put into it.")
    ] = "fp32",
    out: Annotated[Path | None, typer.Option(help="Folder to write the bundle into.")] = None,
    bake: Bake = False,
    every_format: Annotated[
        bool, typer.Option("--formats", help="Put the model file of every runtime that is installed into the bundle.")
    ] = False,
    samples: Annotated[
        int, typer.Option(min=0, max=100, help="Validation images to put into the bundle, with the outputs to expect.")
    ] = 6,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train the network again, on the validation images too, and ship that.")
    ] = False,
    retrain_epochs: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="With --retrain: epochs.", show_default="the trial's")
    ] = None,
    from_weights: Annotated[
        bool, typer.Option("--from-weights", help="With --retrain: begin with its weights instead of random ones.")
    ] = False,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Only rank the networks: measure and test nothing."),
    ] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Pick the most accurate network inside a budget, measure it again, test it once, and write its bundle.

    Limits that are not given are the study's own.
    """
    from dashboards.terminal import documents, pick_tables, trial_tables
    from search.results.picking.budgets import answers
    from search.results.picking.choice import asked_for, ordered
    from search.results.ranking import best, rows_on
    from search.results.replayed import refuse_replayed
    from search.store import reader
    from search.store.replayed import replayed_from
    from search.study_folders import refuse_absent, study_files

    wish, options = _wish(trial, within, smallest), BundleOptions(bake, every_format, samples)
    engine, row, url = open_named(study, storage)
    rows = reader.read_trials(engine, row.id)
    settings = settings_for_device(row, rows, device)
    devices = settings.latency.devices
    rows = rows_on(row, rows, devices[0])
    if precision != "fp32":
        from search.results.winning import rows_in

        rows = rows_in(precision, row, rows, reader.read_points(engine, row.id), devices[0])
    budget = settings.search_budget().with_limits_ms(limits_by_device(max_latency_ms or (), devices), devices[0])
    budget = replace(budget, max_macs=max_macs or budget.max_macs, max_params=max_params or budget.max_params)
    budget = replace(budget, max_file_mb=max_file_mb, max_ram_mb=max_ram_mb or budget.max_ram_mb)
    budget = replace(budget, latency_statistic=latency_statistic or budget.latency_statistic)
    if budgets:
        if out is not None or trial is not None:
            raise InvalidSettings("--budgets shows a table and writes no bundle; leave out --out and --trial.")
        found = answers(engine, row.id, rows, budget, _several_limits(budgets, devices), wish, devices[0])
        output(as_json, pick_tables.budgets_document, pick_tables.budgets_table, found)
        if all(one.row is None for one in found):
            raise NothingFeasible("no trained network is inside any of these limits; each line says how near one is.")
        return
    if wish.trial is not None:
        asked_for(rows, wish.trial, budget)
    ranked = ordered(engine, row.id, best(rows, budget), wish).rows
    if preview:
        output(as_json, documents.trials_document, trial_tables.trials_table, ranked, replayed_from(row.settings))
        return
    refuse_replayed(row, ranked[0], database_words(url), f"the most accurate inside the budget ({budget})")
    if (retrain_epochs is not None or from_weights) and not retrain:
        raise InvalidSettings("--retrain-epochs and --from-weights say how to retrain; add --retrain.")
    _check_bundle_options(row, ranked[0], out, options, force)
    store, row, url = store_named(study, storage)
    refuse_absent(study_files(settings, url))
    opened = Opened(store, row, settings, url)
    if retrain:
        opened, picked = _retrained(opened, budget, wish, precision, (retrain_epochs, from_weights))
    else:
        picked = opened.pick(budget, wish, precision)
    folder = None if out is None else _write_bundle(opened, picked, out, options)
    output(as_json, pick_tables.picked_document, pick_tables.picked_panel, picked, folder)


def _check_bundle_options(
    study: StudyRow, row: TrialRow, out: Path | None, options: BundleOptions, force: bool
) -> None:
    """Raise what would make the bundle impossible, before anything is measured for it."""
    from search.results.bundle.export import pixel_input
    from search.results.bundle.writing import check_bundle_folder

    if out is not None:
        check_bundle_folder(out, force)
    for option, given in (("--bake-preprocessing", options.bake), ("--formats", options.every_format)):
        if given and out is None:
            raise InvalidSettings(f"{option} is for the bundle's model files; name its folder with --out.")
    if options.bake:
        pixel_input(study, row)


def _write_bundle(opened: Opened, picked: Picked, out: Path, options: BundleOptions) -> Path:
    """Write the bundle of a picked network, with its study's front."""
    from dashboards.panels.notebook import StudyFigures
    from search.results.bundle.writing import write_bundle

    figures = StudyFigures(opened.store.engine, opened.study.name)
    picture = figures.front_picture(picked.trial.number, picked.budget.max_latency_ms)
    return write_bundle(opened.store, opened.study, picked, out, opened.cache, replace(options, picture=picture))


def _retrained(
    opened: Opened, budget: Budget, wish: Wish, precision: Precision, how: tuple[int | None, bool]
) -> tuple[Opened, Picked]:
    """Retrain the network that is wanted, and pick the retrained one; the first one is not tested.

    `how` is for how many epochs, and whether from its weights. One that was wanted in 8 or 16 bits is put
    into them again.
    """
    from dashboards.terminal.live_view import live_view
    from search.launch import launch
    from search.results.picking.picked import find_winner
    from search.results.picking.retraining import retraining_settings, told_of_choice
    from search.results.picking.wish import Wish

    winner = find_winner(opened.store, opened.study, budget, opened.targets(), wish, opened.cache, precision)
    settings = retraining_settings(opened.study, winner.row, opened.settings, *how)
    name = settings.study.name
    with live_view(console(stderr=True), 1, None) as view:
        view.note(f"retraining trial {winner.row.number} as study {name!r} …")
        ended = launch(settings, opened.url, resume=True, callback=view)
    if ended.ending == "stopped":
        say("stopped; the same command goes on with it")
        raise typer.Exit(INTERRUPTED)
    again = Opened.named(name, opened.url)
    judged_in: Precision = next((file.precision for file in winner.rounded.values()), "fp32")
    if winner.rounded:
        again.quantize(again.store.trials(), judged_in)
    picked = again.pick(budget, Wish(trial=0), judged_in)
    return again, told_of_choice(picked, winner, opened.study)


def _wish(trial: int | None, within: float | None, smallest: bool) -> Wish:
    if trial is not None and within is not None:
        raise InvalidSettings("--trial names one network, so --within has nothing to choose from; leave one out.")
    if smallest and within is None:
        raise InvalidSettings("--smallest chooses among networks that are nearly as good; say how nearly by --within.")
    return Wish(trial, None if within is None else within / 100, smallest)


def _several_limits(given: Sequence[str], devices: Sequence[str]) -> list[tuple[str, float]]:
    """Return the limits of `--budgets` as (device, ms), in their order; `pi5=5,10` are two of one device."""
    limits: list[tuple[str, float]] = []
    for text in given:
        device, equals, numbers = text.rpartition("=")
        for number in numbers.split(","):
            limits += limits_by_device([f"{device}{equals}{number}"], devices, "--budgets").items()
    return limits


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", metavar="DIR", show_default=False)],
    device: Annotated[
        str | None,
        typer.Option(
            help="Device to measure on: host, virtual:PROFILE or a queue.", show_default="the one it was judged by"
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(min=1e-6, max=1e9, help="Highest latency allowed, in ms.", show_default="the bundle's"),
    ] = None,
    no_measuring: Annotated[
        bool, typer.Option("--no-measuring", help="Only check the files and run the samples.")
    ] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle's files, run its samples, measure it again, and say PASS or FAIL against its budget.

    Exit code 0 is a PASS; a folder that is not as it was written, other outputs, a latency over the budget and a
    machine that was too busy to tell have codes of their own.
    """
    from dashboards.terminal.bundle_tables import report_document, report_panel
    from search.results.bundle.verifying import check_bundle

    report = check_bundle(bundle)
    if report.failure is None and not no_measuring:
        report = _measured(report, device, max_latency_ms, storage)
    output(as_json, report_document, report_panel, report)
    if report.failure is not None:
        raise report.failure


def _measured(
    report: BundleReport, device: str | None, max_latency_ms: float | None, storage: str | None
) -> BundleReport:
    """Return a bundle's report with its latency; a queue of devices is asked through the database that it serves."""
    import tempfile

    from search.devices.probe import VERIFYING
    from search.pricing.targets import Probes
    from search.results.bundle.verifying import measure_bundle, settings_for, what_to_measure
    from search.settings import HOST
    from search.store.connection.database import open_for_reading, open_for_writing
    from workers.latency.profiles import VIRTUAL

    measured = what_to_measure(report.folder, device, max_latency_ms)
    is_here = measured.target == HOST or measured.target.startswith(VIRTUAL)
    engine = None if is_here else open_for_reading(database_url(storage))
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        probes = Probes(settings_for(measured), engine, Path(folder), say, VERIFYING)
        probe = probes.on(measured.target)  # raises before a database is made where there is none
        if not is_here:
            probe = replace(probes, engine=open_for_writing(database_url(storage))).on(measured.target)
        return measure_bundle(report, measured, probe)


def crossvalidate(
    trial: TrialNumber, study: StudyName = None, storage: Storage = None, as_json: AsJson = False
) -> None:
    """Train a network anew on each fold of its study's images; show its top-1 on them, and how far it varies.

    The study needs data.folds. Folds that were trained before aren't trained again.
    """
    from dashboards.terminal.comparison_tables import folds_document, folds_table
    from search.crossvalidation import cross_validate
    from search.results.replayed import refuse_replayed
    from search.store import reader

    engine, study_row, url = open_named(study, storage)
    row = reader.find_trial(engine, study_row, trial)
    refuse_replayed(study_row, row, database_words(url))
    scores = tuple(cross_validate(study_row, row, stored_settings(study_row), url, say))
    output(as_json, folds_document, folds_table, scores)


def export(
    trial: TrialNumber,
    study: StudyName = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write, whose suffix says the format, or a folder; - is standard output.",
            show_default="model.onnx, or as --runtime calls it",
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--format",
            "--runtime",
            help="Runtime to write for: onnx (onnxruntime), ncnn, litert or native.",
            show_default="by --out",
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="fp32; or int8 (calibrated on training images) or fp16, whose file's accuracy is shown."),
    ] = "fp32",
    bake: Bake = False,
    storage: Storage = None,
) -> None:
    """Write a finished trial's network as ONNX, or for another runtime; what is written is run and compared first."""
    from search.results.bundle.export import export_rounded, export_target, export_trial, pixel_input
    from search.results.replayed import refuse_replayed
    from search.store import reader
    from search.store.store import StudyStore
    from search.study_folders import cache_folder, refuse_absent, study_files

    runtime = {"onnx": "onnxruntime"}.get(runtime or "", runtime)
    path = Path(file_for(runtime or "onnxruntime", stem_for(precision))) if out is None else out
    engine, study_row, url = open_named(study, storage)
    row = reader.find_trial(engine, study_row, trial)
    refuse_replayed(study_row, row, database_words(url))
    settings = stored_settings(study_row)
    refuse_absent(study_files(settings, url))
    pixels = pixel_input(study_row, row) if bake else None
    _, known = export_target(path, runtime, precision)
    store = StudyStore(engine, study_row.id)
    if precision != "fp32":
        cache = cache_folder(settings, url)
        written, file = export_rounded(store, study_row, row, path, runtime, cache, pixels, say, precision)
        show_written(written)
        say(file.words)
    else:
        show_written(export_trial(store, row, path, runtime, pixels))
    if pixels is not None:
        say(_remains(pixels, known))


def _remains(pixels: PixelInput, runtime: Runtime) -> str:
    """Return what a program must still do before a model that scales pixels itself."""
    from search.results.bundle.facts import inputs_of

    return (
        f"the model takes whole pixels as {inputs_of(pixels.preprocessing)[runtime]}, {pixels.rules['channel_order']}, "
        "and scales them; what remains is to decode, turn, crop and resize: [preprocessing] in a bundle's deploy.toml "
        "says how"
    )
