"""Before and while a study runs: init, check, launch, stop, cancel."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.common import (
    INTERRUPTED,
    AsJson,
    Overrides,
    Storage,
    StudyFile,
    StudyName,
    TrialNumber,
    console,
    name_and_url,
    open_named,
    print_json,
    say,
    show_text,
    store_named,
)
from search.store.connection.printed_commands import printed_command
from space.errors import (
    DatabaseUnavailable,
    DatabaseVersion,
    FileInTheWay,
    InvalidSettings,
    NotOurDatabase,
    SearchFailed,
    StudyNotFound,
)
from workers.wording import of_wanted

if TYPE_CHECKING:
    from search.settings import StudySettings
    from search.store.rows import StudyRow
    from search.store.store import StudyStore
    from workers.images.reading import DecodingRecord

STARTING_S, LOOK_S = 10.0, 0.2  # how long `stop` waits for a study that is just starting, and between two looks
NOT_PRINTED = ("study.storage", "notify.webhook")  # overrides that may hold a secret


def init(
    path: Annotated[Path, typer.Argument(help="The study file to write.")] = Path("study.toml"),
    preset: Annotated[str, typer.Option(help="Preset to start from: digits, cifar or imagenet-mobile.")] = "digits",
    name: Annotated[str | None, typer.Option(help="The study's name.", show_default="the preset's")] = None,
    measure_budget: Annotated[
        bool,
        typer.Option("--measure-budget", help="Measure sampled networks here, and write a latency budget that fits."),
    ] = False,
    trial: Annotated[
        int | None,
        typer.Option(min=0, help="Write the file that trains this trial's network alone, with its settings and seed."),
    ] = None,
    study: Annotated[str | None, typer.Option(help="The study of --trial; not needed if it is the only one.")] = None,
    storage: Storage = None,
) -> None:
    """Write a commented study file to start from."""
    from search.study_file import settings_from
    from search.study_template import study_file

    if path.is_dir():
        path = path / "study.toml"
    if path.exists():
        raise FileInTheWay(f"{path} exists already and stays as it is; choose another path, or remove it first.")
    text = study_file(preset, name or preset) if trial is None else _training_file(trial, study, storage)
    if measure_budget:
        from search.reachability import budget_space
        from search.time_estimate import suggest_budget_ms

        say("measuring a dozen sampled networks on this host …")
        budget_ms = suggest_budget_ms(budget_space(settings_from(_toml(text), str(path))))
        text = study_file(preset, name or preset, budget_ms)
    settings_from(_toml(text), str(path))
    from workers.files import write_atomically

    write_atomically(path, text.encode())
    then = ", then ".join(printed_command(["condensery", verb, path]) for verb in ("check", "launch"))
    say(f"wrote {path}; look it over, then: {then}")


def _training_file(trial: int, study: str | None, storage: str | None) -> str:
    """Return a study file that trains one recorded network."""
    from search.results.replayed import training_file
    from search.store import reader

    engine, row, _ = open_named(study, storage)
    return training_file(row, reader.find_trial(engine, row, trial))


def _toml(text: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"this name makes no valid study file: {error}; choose another.") from None


def check(
    study: StudyFile,
    set_: Overrides = None,
    as_json: AsJson = False,
    no_timing: Annotated[
        bool, typer.Option("--no-timing", help="Skip what takes seconds: the time estimate, and measuring a limit.")
    ] = False,
    images: Annotated[
        bool, typer.Option("--images", help="Read every image too, and name all that can't be read.")
    ] = False,
    storage: Storage = None,
) -> None:
    """Validate a study file and show what it means: space, sampled networks, time. Writes nothing."""
    from dashboards.terminal import answers
    from search.launch import starts_of
    from search.reachability import check_latency_here
    from search.study import refuse_foreign_study
    from search.study_file import load_settings
    from search.time_estimate import outline_study, time_study

    settings = load_settings(study, set_ or ())
    url = storage or settings.storage
    refuse_foreign_study(url, settings.study.name)
    outline = outline_study(settings, starts_of(settings, url, say))
    if not as_json:
        show_text(answers.outline_panel(outline))
    replayed = outline.settings.replay.table is not None  # takes seconds, whatever the trainings once took
    for lacking in () if replayed else _lacking_devices(outline.settings, url):
        say(f"not ready to launch: {lacking}")
    if not no_timing and not replayed:
        check_latency_here(outline.settings)
    timed = None if no_timing or replayed else time_study(outline)
    read = _read_images(outline.settings) if images and not replayed else None
    if as_json:
        print_json(answers.outline_document(outline, timed, read))
    elif timed is not None:
        show_text("")
        show_text(answers.time_line(outline, timed))
    if read is not None:
        if not as_json:
            show_text(answers.read_lines(read))
        read.check(outline.data.dataset, outline.settings.data)


def _lacking_devices(settings: StudySettings, url: str) -> list[str]:
    from search.pricing.targets import lacking_devices
    from search.store.connection.database import open_any_for_reading
    from search.store.connection.schema import has_tables

    engine = open_any_for_reading(url)
    try:
        return lacking_devices(settings, engine if engine is not None and has_tables(engine) else None)
    finally:
        if engine is not None:
            engine.dispose()


def _read_images(settings: StudySettings) -> DecodingRecord:
    from workers.images.reading import read_through

    return read_through(settings.data)


def launch(
    study: Annotated[Path | None, typer.Argument(help="The study file, like study.toml.", show_default=False)] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            help="Replay a table of recorded trainings (condensebench, or a .csv.gz) instead of training; then the "
            "study file may be left out.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an existing study.")] = False,
    warm_start: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY[@DATABASE]",
            help="Begin with what an earlier study's networks reached, ours or Optuna's, as the sampler's belief.",
        ),
    ] = None,
    stand_by: Annotated[
        bool, typer.Option("--stand-by", help="Wait while another process runs the study, and take over when it ends.")
    ] = False,
    set_: Overrides = None,
    storage: Storage = None,
) -> None:
    """Run a search until its number of trainings is done; Ctrl-C stops it cleanly."""
    from dashboards.terminal.live_view import live_view
    from search.budget import Budget
    from search.store.replayed import replayed_from, replayed_words

    if warm_start is not None:
        set_ = [*(set_ or ()), f"search.warm_start={json.dumps(warm_start)}"]
    settings = _launched_settings(study, replay, set_ or ())
    url = storage or settings.storage
    replayed = replayed_from(settings.model_dump())
    resume_command, look_command = next_commands(study, settings, set_ or (), storage, replay)
    try:
        pauses = settings.search.pauses
        with live_view(console(stderr=True), settings.study.trainings, replayed, pauses) as view:
            view.note("starting …")
            from search.launch import launch as run

            ended = run(settings, url, resume or stand_by, view, stand_by)
    except KeyboardInterrupt:
        say(f"interrupted; go on with: {resume_command}")
        raise typer.Exit(INTERRUPTED) from None
    for remark in ended.remarks:
        say(f"note: {remark}")
    done = replayed_words(replayed) or "done"
    if ended.ending == "stopped":
        say(f"stopped with {of_wanted(ended.done, ended.wanted, 'training', done)}; go on with: {resume_command}")
        raise typer.Exit(INTERRUPTED)
    if ended.ending == "exhausted":
        inside = "" if settings.search_budget() == Budget() else " inside the budget"
        tried = f"every network of the space{inside} has been tried"
        if not ended.done:
            reasons = look_command.replace("condensery pareto", "condensery trials", 1)
            raise SearchFailed(f"{tried}, and none could be trained; see why: {reasons}")
        say(f"{tried}: {ended.done} trainings {done} of {ended.wanted} wanted")
    else:
        say(f"{of_wanted(ended.done, ended.wanted, 'training', done)}; see: {look_command}")


def _launched_settings(study: Path | None, replay: str | None, overrides: Sequence[str]) -> StudySettings:
    """Return the settings of a launch: of a study file, of a table to replay, or of both."""
    from search.study_file import load_replay, load_settings

    if replay is not None:
        return load_replay(replay, study, overrides)
    if study is None:
        raise typer.BadParameter("name a study file, or a table with --replay", param_hint="STUDY")
    return load_settings(study, overrides)


def next_commands(
    study: Path | None,
    settings: StudySettings,
    overrides: Sequence[str],
    storage: str | None,
    replay: str | None = None,
) -> tuple[str, str]:
    """Return the commands that go on with a study and that show its results, as they work in a shell."""
    keys = [override.partition("=")[0].strip() for override in overrides]
    kept = [override for override, key in zip(overrides, keys, strict=True) if key not in NOT_PRINTED]
    named = storage or (settings.storage if "study.storage" in keys else None)
    words = [word for override in kept for word in ("--set", override)]
    source: list[str | Path] = [*([] if replay is None else ["--replay", replay]), *([] if study is None else [study])]
    resume = printed_command(["condensery", "launch", *source, "--resume", *words], named, "")
    if study is not None and not overrides:
        return resume, printed_command(["condensery", "pareto", study], named, "")
    return resume, printed_command(["condensery", "pareto", settings.study.name], storage or settings.storage)


def stop(study: StudyName = None, storage: Storage = None) -> None:
    """Ask a running study to stop cleanly, as Ctrl-C does."""
    from search.enqueueing import steering

    store, row, _ = _once_started(study, storage)
    say(steering.stop(store, row))


def _once_started(study: str | None, storage: str | None) -> tuple[StudyStore, StudyRow, str]:
    """Return a study that is to be stopped, opened for writing; wait a moment for one that is only just starting.

    A launch reads its images and checks its budget before there is a database, or a study in it.

    Raises:
        DatabaseUnavailable, StudyNotFound: there is none after that time.
    """
    from search.store.connection.database import sqlite_file

    _, url = name_and_url(study, storage)
    file, until, said = sqlite_file(url), time.monotonic() + STARTING_S, False
    is_new = file is not None and not file.exists()
    while True:
        try:
            return store_named(study, storage)
        except (DatabaseUnavailable, NotOurDatabase, DatabaseVersion, StudyNotFound) as error:
            # A new file has no tables for a moment. Of one that was there, only the study may come.
            if not (is_new or isinstance(error, StudyNotFound)):
                raise
            if time.monotonic() >= until:
                late = (
                    "If its launch has only just begun, it can be stopped once it has read its images: ask again then."
                )
                raise type(error)(f"{error} {late}") from None
        if not said:
            say(f"there is no such study yet; waiting up to {STARTING_S:g} s in case it is just starting …")
            said = True
        time.sleep(LOOK_S)


def cancel(trial: TrialNumber, study: StudyName = None, storage: Storage = None) -> None:
    """Cancel one trial that has not finished."""
    from search.enqueueing import steering

    store, row, _ = store_named(study, storage)
    say(steering.cancel(store, row, trial))
