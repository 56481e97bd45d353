"""Condensery's front door: one command per verb, nothing heavy imported until a command runs.

Data goes to stdout, everything else to stderr. A user's mistake is one line and its own exit code (`space.errors`).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from space.errors import CondenseryError, InvalidSettings, ReadOnlyFolder, StudyNotFound, TrialNotReady

if TYPE_CHECKING:
    import sqlalchemy as sa
    from rich.console import Console

    from search.settings import StudySettings
    from search.store.reader import StudyRow
    from search.store.store import StudyStore

INTERRUPTED = 130
app = typer.Typer(
    name="condensery",
    help="Find the CondenseNet to deploy: the most accurate one inside your device's latency budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
db_app = typer.Typer(help="Look after the study database.", no_args_is_help=True)
app.add_typer(db_app, name="db")

StudyFile = Annotated[Path, typer.Argument(help="The study file (study.toml).", show_default=False)]
StudyName = Annotated[
    str | None,
    typer.Argument(help="A study's name or its study.toml; may be left out when there is only one.", metavar="[STUDY]"),
]
TrialNumber = Annotated[int, typer.Argument(help="The trial's number.", min=0)]
Storage = Annotated[
    str | None, typer.Option(help="Database URL.", show_default="the study file's, or sqlite:///condensery.db")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. training.epochs=5.")
]


def main() -> NoReturn:
    """Run the command line; every error of ours ends in one line and its exit code."""
    try:
        app()
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except Exception as error:
        ours = _as_ours(error)
        if ours is None:
            raise
        sys.stderr.write(f"error: {' '.join(str(ours).split())}\n")
        sys.exit(ours.exit_code)
    sys.exit(0)


def _as_ours(error: BaseException | None) -> CondenseryError | None:
    """Find the error of ours that an exception is, or that a driver's exception inside it stands for."""
    while error is not None:
        if isinstance(error, CondenseryError):
            return error
        if isinstance(error, OSError) and error.errno is not None:
            from workers.files import disk_errors

            try:
                with disk_errors(Path(error.filename or ".")):
                    raise error
            except CondenseryError as ours:
                return ours
            except OSError:
                pass
        if "sqlalchemy" in sys.modules:
            from sqlalchemy.exc import DBAPIError

            from search.store.database import database_errors

            if isinstance(error, DBAPIError):
                try:
                    with database_errors("sqlite://"):
                        raise error
                except CondenseryError as ours:
                    return ours
        error = error.__cause__ or error.__context__
    return None


# -- shared by the commands --


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _show(renderable: Any) -> None:
    _console().print(renderable, crop=False)  # a path longer than the line stays whole


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _name_and_url(study: str | None, storage: str | None) -> tuple[str | None, str]:
    from search.settings import DEFAULT_STORAGE, load_settings

    if study is not None and study.endswith(".toml"):
        settings = load_settings(Path(study))
        return settings.study.name, storage or settings.storage
    return study, storage or DEFAULT_STORAGE


def _open(study: str | None, storage: str | None, write: bool = False) -> tuple[sa.Engine, StudyRow, str]:
    """Return the database and the study that the user named; the only one when none was named."""
    from search.store import reader
    from search.store.database import open_for_reading, open_for_writing

    name, url = _name_and_url(study, storage)
    engine = open_for_reading(url)
    if name is None:
        studies = reader.list_studies(engine)
        if len(studies) != 1:
            names = ", ".join(repr(row.name) for row in studies[:10])
            raise StudyNotFound(f"name a study: {names}." if names else "the database holds no study yet; launch one.")
        name = studies[0].name
    found = reader.find_study(engine, name)
    return (open_for_writing(url) if write else engine), found, url


def _store(study: str | None, storage: str | None) -> tuple[StudyStore, StudyRow, str]:
    from search.store.store import StudyStore

    engine, found, url = _open(study, storage, write=True)
    return StudyStore(engine, found.id), found, url


def _stored_settings(found: StudyRow) -> StudySettings:
    from search.settings import settings_from

    return settings_from(found.settings, "the stored settings")


# -- before and while a study runs --


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write the study file.")] = Path("study.toml"),
    preset: Annotated[str, typer.Option(help="digits, cifar or imagenet-mobile.")] = "digits",
    name: Annotated[str | None, typer.Option(help="The study's name.", show_default="the preset's")] = None,
    measure_budget: Annotated[
        bool, typer.Option("--measure-budget", help="Measure sampled networks on this host; write a fitting budget.")
    ] = False,
) -> None:
    """Write a commented study file to start from."""
    from search.settings import settings_from
    from search.study_files import study_file

    if path.is_dir():
        path = path / "study.toml"
    if path.exists():
        raise ReadOnlyFolder(f"{path} exists; choose another path, or remove it first.")
    text = study_file(preset, name or preset)
    if measure_budget:
        from search.estimate import suggest_budget_ms
        from search.launch import budget_space

        _say("measuring a dozen sampled networks on this host …")
        budget_ms = suggest_budget_ms(budget_space(settings_from(_toml(text), str(path))))
        text = study_file(preset, name or preset, budget_ms)
    settings_from(_toml(text), str(path))
    from workers.files import write_atomically

    write_atomically(path, text.encode())
    _say(f"wrote {path}; look it over, then: condensery check {path}, condensery launch {path}")


def _toml(text: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"that makes no valid study file: {error}.") from None


@app.command()
def check(
    study: StudyFile,
    set_: Overrides = None,
    as_json: AsJson = False,
    no_timing: Annotated[
        bool, typer.Option("--no-timing", help="Leave out the time estimate, which takes seconds.")
    ] = False,
) -> None:
    """Validate a study file and say what it means: space, sample networks, time. Writes nothing."""
    from dashboards import answers
    from search.estimate import estimate, time_study
    from search.settings import load_settings

    found = estimate(load_settings(study, set_ or ()))
    if not as_json:
        _show(answers.estimate_panel(found))
    timed = None if no_timing else time_study(found)
    if as_json:
        _print_json(answers.estimate_document(found, timed))
    elif timed is not None:
        _show("")
        _show(answers.time_line(found, timed))


@app.command()
def launch(
    study: StudyFile,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an existing study.")] = False,
    set_: Overrides = None,
    storage: Storage = None,
) -> None:
    """Run a search to its number of trainings; Ctrl-C once stops it cleanly."""
    from dashboards.terminal import live_view
    from search.settings import load_settings

    settings = load_settings(study, set_ or ())
    url = storage or settings.storage
    with live_view(_console(stderr=True), settings.study.trainings) as view:
        view.note("starting …")
        from search.launch import launch as run

        ended = run(settings, url, resume, view)
    again = f"condensery launch {study} --resume" + (f" --storage {storage}" if storage else "")
    if ended.ending == "stopped":
        _say(f"stopped with {ended.done} of {ended.wanted} trainings done; go on with: {again}")
        raise typer.Exit(INTERRUPTED)
    if ended.ending == "exhausted":
        _say(f"every network of the space has been tried: {ended.done} trainings done of {ended.wanted} wanted")
    else:
        _say(f"{ended.done} of {ended.wanted} trainings done; see: condensery pareto {study}")


@app.command()
def enqueue(
    config: Annotated[str, typer.Argument(help="A config as JSON, or a file of it; shapes come from the study.")],
    study: StudyName = None,
    storage: Storage = None,
) -> None:
    """Have a config of your own tried next."""
    from space.config import CondenseNetConfig

    store, found, _ = _store(study, storage)
    settings = _stored_settings(found)
    space = settings.search_space()
    text = config if config.lstrip().startswith("{") else _read_config(Path(config))
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        values = None
    if isinstance(values, dict):
        text = json.dumps({"num_classes": space.num_classes, "input_shape": list(space.input_shape), **values})
    wanted = CondenseNetConfig.from_json(text)
    if (wanted.input_shape, wanted.num_classes) != (space.input_shape, space.num_classes):
        raise InvalidSettings(
            f"the study's images need input_shape={list(space.input_shape)}, num_classes={space.num_classes}, but the "
            f"config has {list(wanted.input_shape)}, {wanted.num_classes}."
        )
    store.enqueue(wanted, settings.training_space().from_params({}).model_dump(mode="json"))
    where = "" if space.contains(wanted) else " (outside the space: the sampler won't learn from it)"
    when = "next" if store.is_run() else "when the study is launched again with --resume"
    _say(f"{wanted} is tried {when}{where}, beside the trainings that the study wants")


def _read_config(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"a config is JSON text or a file of it, but {path} can't be read: {error}.") from None


@app.command()
def stop(study: StudyName = None, storage: Storage = None) -> None:
    """Ask a running study to stop cleanly, as Ctrl-C does."""
    store, found, _ = _store(study, storage)
    owner = store.request_stop()
    if owner is None:
        _say(f"study {found.name!r} is not running")
    else:
        _say(f"asked {owner.partition('@')[0]} (host:pid) to stop study {found.name!r}")


@app.command()
def cancel(trial: TrialNumber, study: StudyName = None, storage: Storage = None) -> None:
    """Cancel one trial that has not finished."""
    from search.store.reader import find_trial
    from search.store.tables import FINAL_STATES

    store, found, _ = _store(study, storage)
    row = find_trial(store.engine, found, trial)
    if row.state in FINAL_STATES:
        raise TrialNotReady(f"trial {trial} is {row.state} already; only an open trial can be cancelled.")
    if store.is_run():
        store.request_cancel(trial)
        _say(f"asked the running study to cancel trial {trial}")
    else:
        store.finish(trial, "cancelled", reason="cancelled by the user")
        _say(f"trial {trial} is cancelled")


# -- reading --


@app.command()
def status(study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show how a study stands; without a name, every study of the database."""
    from dashboards import documents, tables
    from search.store import reader
    from search.store.database import open_for_reading

    name, url = _name_and_url(study, storage)
    studies = reader.list_studies(open_for_reading(url)) if name is None else []
    if name is None and len(studies) != 1:
        if as_json:
            _print_json(documents.studies_document(studies))
        else:
            _show(tables.studies_table(studies))
        return
    engine, found, _ = _open(study, storage)
    seen = (found, reader.count_states(engine, found.id), reader.count_waiting_requests(engine, found.id))
    if as_json:
        _print_json(documents.study_document(*seen))
    else:
        _show(tables.status_panel(*seen))


@app.command()
def trials(study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """List a study's trials."""
    from dashboards import documents, tables
    from search.store import reader

    engine, found, _ = _open(study, storage)
    rows = reader.read_trials(engine, found.id)
    if as_json:
        _print_json(documents.trials_document(rows))
    else:
        _show(tables.trials_table(rows))


@app.command()
def show(trial: TrialNumber, study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show one trial: architecture, cost, learning curve, measurements, files."""
    from dashboards import documents, tables
    from search.store import reader

    engine, found, _ = _open(study, storage)
    row = reader.find_trial(engine, found, trial)
    parts = (
        reader.read_curve(engine, row.id),
        reader.read_latencies(engine, row.id),
        reader.read_artifacts(engine, row.id),
    )
    if as_json:
        _print_json(documents.trial_detail_document(row, *parts))
    else:
        _show(tables.trial_panel(row, *parts))


@app.command()
def pareto(study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show the Pareto front: the networks that no other beats in accuracy, latency and macs."""
    from dashboards import documents, tables
    from search.pareto import pareto_front
    from search.store import reader

    engine, found, _ = _open(study, storage)
    front = pareto_front(reader.read_trials(engine, found.id))
    if as_json:
        _print_json(documents.front_document(front))
    else:
        _show(tables.pareto_table(front))


@app.command()
def logs(trial: TrialNumber, study: StudyName = None, storage: Storage = None) -> None:
    """Print a trial's log file."""
    from search.launch import trial_folder
    from search.store import reader
    from workers.trial import LOG_FILE

    engine, found, url = _open(study, storage)
    row = reader.find_trial(engine, found, trial)
    path = trial_folder(_stored_settings(found), url, trial) / LOG_FILE
    if not path.exists():
        raise TrialNotReady(f"trial {trial} is {row.state} and has no log at {path}.")
    sys.stdout.write(path.read_text(encoding="utf-8"))


# -- handing out --


@app.command()
def pick(
    study: StudyName = None,
    max_latency_ms: Annotated[float | None, typer.Option(min=0.0, help="Limit of the latency, in ms.")] = None,
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
    from search.gate import Budget
    from search.pick import best
    from search.store import reader

    given = {"max_latency_ms": max_latency_ms, "max_macs": max_macs, "max_params": max_params}
    engine, found, url = _open(study, storage)
    own = found.settings["budget"]
    budget = Budget(**{name: own.get(name) if limit is None else limit for name, limit in given.items()})
    ranked = best(reader.read_trials(engine, found.id), budget)
    if preview:
        if as_json:
            _print_json(documents.trials_document(ranked))
        else:
            _show(tables.trials_table(ranked))
        return
    from search import bundle
    from search.launch import cache_folder, probe_for

    store, found, url = _store(study, storage)
    settings = _stored_settings(found)
    probe = probe_for(settings, url)
    picked = bundle.pick(store, found, budget, probe, cache_folder(settings, url))
    folder = None if out is None else bundle.write_bundle(store, found, picked, out)
    if as_json:
        _print_json(answers.picked_document(picked, folder))
    else:
        _show(answers.picked_panel(picked, folder))


@app.command()
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

    engine, found, _ = _open(study, storage)
    row = reader.find_trial(engine, found, trial)
    _show(f"wrote {export_trial(StudyStore(engine, found.id), row, out)}")


@app.command()
def report(
    study: StudyName = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    max_latency_ms: Annotated[
        float | None, typer.Option(min=0.0, help="Limit of the latency, in ms.", show_default="the study's own")
    ] = None,
    storage: Storage = None,
) -> None:
    """Write one self-contained HTML page with the Pareto front."""
    from dashboards.report import write_report

    engine, found, _ = _open(study, storage)
    limit = max_latency_ms if max_latency_ms is not None else found.settings["budget"].get("max_latency_ms")
    write_report(engine, found.name, out, limit)
    _show(f"wrote {out}")


# -- the database --


@app.command()
def delete(
    study: Annotated[str, typer.Argument(help="The study's name or its study.toml.")],
    storage: Storage = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave networks and logs on disk.")] = False,
) -> None:
    """Delete a study: its rows, Optuna's rows and its files."""
    import shutil

    _, found, url = _open(study, storage)
    if not yes:
        typer.confirm(f"Delete study {found.name!r} and its files for good?", abort=True)
    from search.launch import study_files
    from search.study import remove_study

    remove_study(url, found.name)
    files = study_files(_stored_settings(found), url)
    if not keep_files and files.exists():
        shutil.rmtree(files)
    _say(f"deleted study {found.name!r}")


@db_app.command()
def upgrade(storage: Storage = None) -> None:
    """Bring the database's tables to this version."""
    from search.settings import DEFAULT_STORAGE
    from search.store.database import upgrade as run

    before, after = run(storage or DEFAULT_STORAGE)
    _say(f"the database is at version {after}" + (f" (was {before})" if before != after else ", nothing to do"))


if __name__ == "__main__":
    main()
