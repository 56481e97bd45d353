"""Studies beside each other, and networks of other kinds beside a study's: compare, baselines."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.common import (
    INTERRUPTED,
    AsJson,
    LatencyLimits,
    Storage,
    StudyName,
    columns_named,
    comparison_limit,
    output,
    say,
    store_named,
    stored_settings,
)
from commands.plotting import AxisName
from search.store.connection.printed_commands import database_words
from space.errors import TrialNotReady
from workers.wording import counted

if TYPE_CHECKING:
    from search.results.baselines import BaselineResult
    from search.store.rows import StudyRow
    from search.store.store import StudyStore


def compare(
    studies: Annotated[
        list[str], typer.Argument(help="Two to four studies, by name or study file.", metavar="STUDY STUDY [STUDY]...")
    ],
    axis: Annotated[
        AxisName | None,
        typer.Option(help="Compare accuracies against this cost.", show_default="latency, where they share it"),
    ] = None,
    max_latency_ms: LatencyLimits = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Compare the fronts of studies of the same images and device, and the best of each inside one limit."""
    from dashboards.studies.documents import comparison_document
    from dashboards.studies.fronts import compare_on
    from dashboards.terminal.comparison_tables import studies_compared

    if len(studies) < 2:
        raise typer.BadParameter("name two studies or more", param_hint="STUDY")
    columns = columns_named(studies, storage)
    device, limit_ms = comparison_limit(columns, max_latency_ms or ())
    found = compare_on(columns, axis.value if axis else None, device, limit_ms)[0]
    output(as_json, comparison_document, studies_compared, found)


def baselines(
    study: StudyName = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train each by the study's recipe on its images too; takes long.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this network; may be repeated.", show_default="all")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure and train also what is known already.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Compare with networks of other kinds at the study's image size: cost, latency and, by --train, accuracy."""
    from dashboards.terminal.comparison_tables import baselines_document, baselines_table
    from search.launch import interruptible
    from search.results.baselines import baseline_names, check_names, keep_baseline, read_baselines, verdicts
    from search.study_folders import refuse_absent, study_files
    from workers.latency.measurement import MeasurementStopped
    from workers.training.reporting import TrainingStopped

    names = tuple(only or baseline_names())
    check_names(names)
    store, row, url = store_named(study, storage)
    settings = stored_settings(row)
    files = study_files(settings, url)
    refuse_absent(files)
    with interruptible(lambda: say("stopping; what is known is kept")) as stop:
        try:
            known = {} if again else {result.name: result for result in read_baselines(files)}
            for result in _priced(store, row, url, [name for name in names if name not in known], stop.is_set):
                keep_baseline(files, result)
                say(f"{result.title}: {_known_words(result)}")
            if train:
                for result in _trained(store, row, url, names, again, stop.is_set):
                    keep_baseline(files, result)
        except (MeasurementStopped, TrainingStopped):
            raise typer.Exit(INTERRUPTED) from None
    results = [result for result in read_baselines(files) if result.name in names]
    said = verdicts(results, store.trials(), settings.study.objective, settings.search_budget())
    output(as_json, baselines_document, baselines_table, results, settings.study.objective, said)


def _priced(
    store: StudyStore, row: StudyRow, url: str, names: Sequence[str], stop: Callable[[], bool]
) -> Iterator[BaselineResult]:
    """Measure networks on the study's first device, in onnxruntime: other runtimes' files are CondenseNets' alone."""
    from search.pricing.targets import targets_of, with_runtimes
    from search.results.baselines import measured
    from search.study_folders import files_root

    if not names:
        return
    settings = stored_settings(row)
    first, space = settings.latency.devices[0], settings.search_space()
    latency = settings.latency.model_copy(update={"devices": (first,), "objectives": None})
    budget = settings.budget.model_copy(update={"max_latency_ms": None})
    alone = with_runtimes(settings.model_copy(update={"latency": latency, "budget": budget}), {first: "onnxruntime"})
    (target,) = targets_of(alone, store.engine, files_root(settings, url), say)
    with tempfile.TemporaryDirectory(prefix="baselines-") as folder:
        yield from measured(names, space.input_shape, space.num_classes, target, Path(folder), stop)


def _trained(
    store: StudyStore, row: StudyRow, url: str, names: Sequence[str], again: bool, stop: Callable[[], bool]
) -> Iterator[BaselineResult]:
    """Train networks by the recipe of the study's best trial."""
    from search.results.baselines import read_baselines, trained
    from search.results.replayed import refuse_replayed
    from search.study_folders import cache_folder, study_files
    from workers.images.batches import load
    from workers.images.cache import prepare
    from workers.settings import TrainingSettings

    settings = stored_settings(row)
    done = [trial for trial in store.trials() if trial.score is not None]
    if not done:
        raise TrialNotReady("no trial has finished its training yet, so there is no recipe; launch the study first.")
    best = max(done, key=lambda trial: trial.score or 0.0)
    refuse_replayed(row, best, database_words(url))
    cache = cache_folder(settings, url)
    prepare(settings.data, cache)
    images = load(settings.data, cache)
    recipe = TrainingSettings.model_validate(best.training)
    for result in read_baselines(study_files(settings, url)):
        if result.name not in names or result.problem or (result.scores and not again):
            continue
        say(f"training {result.title} by the recipe of trial {best.number} ({counted(recipe.epochs, 'epoch')}) …")
        with_scores = trained(
            result,
            recipe,
            settings.data,
            images,
            settings.study.objective,
            best.seed,
            settings.engine.device,
            _no_report,
            stop,
        )
        rate = with_scores.recipe["learning_rate"]
        say(f"{result.title}: {with_scores.scores[settings.study.objective]:.2%} at a learning rate of {rate:g}")
        yield with_scores


def _no_report(rate: float, epoch: int, epochs: int) -> None:
    """Say nothing of single epochs."""


def _known_words(result: BaselineResult) -> str:
    if result.latency is None:
        return result.problem
    return f"{result.latency.median_ms:.4g} ms, {result.macs:,} macs, {counted(result.params, 'parameter')}"
