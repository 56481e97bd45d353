"""Looking at a study: on the terminal, in a browser, and as one HTML file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.common import (
    AsJson,
    Csv,
    LatencyLimits,
    Limit,
    Sort,
    Statistic,
    Storage,
    StudyName,
    TrialNumber,
    Where,
    Wide,
    columns_named,
    comparison_limit,
    limits_by_device,
    name_and_url,
    open_named,
    output,
    say,
    show_text,
    show_written,
    stored_settings,
)
from search.store.connection.printed_commands import database_words, printed_command
from space.errors import InvalidSettings, ReadOnlyFolder, TrialNotReady

if TYPE_CHECKING:
    import sqlalchemy as sa

    from search.store.rows import StudyRow, TrialRow

Maker = Callable[..., Any]

# -- on the terminal --


def status(study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show a study's progress; without a name, all studies of the database."""
    from dashboards.studies.overview import Overview, read_state
    from dashboards.terminal import documents, study_tables
    from search.store import reader
    from search.store.connection.database import open_for_reading

    name, url = name_and_url(study, storage)
    if name is None and len(reader.list_studies(engine := open_for_reading(url))) != 1:
        overview = Overview(engine, shlex.join(database_words(url)))
        output(as_json, documents.studies_document, study_tables.studies_table, overview.read())
        return
    engine, row, _ = open_named(study, storage)
    study_status, (state, note) = reader.read_status(engine, row.id), read_state(engine, row)
    document = partial(documents.study_document, state=state)
    panel = partial(study_tables.status_panel, state=f"{state}: {note[:1].lower()}{note[1:]}")
    output(as_json, document, panel, row, study_status)


def trials(
    study: StudyName = None,
    where: Where = None,
    sort: Sort = None,
    limit: Limit = None,
    wide: Wide = False,
    csv: Csv = None,
    starred: Annotated[bool, typer.Option("--starred", help="Only trials on the shortlist; see `note`.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """List a study's trials."""
    from dashboards.terminal import documents, trial_tables
    from dashboards.terminal.choosing import chosen_trials
    from search.store import reader

    engine, row, _ = open_named(study, storage)
    every = [one for one in reader.read_trials(engine, row.id) if one.starred or not starred]
    rows = chosen_trials(every, where or (), sort, limit)
    form = _Form(as_json, csv, wide)
    form.show(engine, row, rows, (documents.trials_document, trial_tables.trials_table))


@dataclass(frozen=True)
class _Form:
    """How trials are printed; at most one of these is wanted."""

    as_json: bool
    csv: Path | None
    wide: bool

    def __post_init__(self) -> None:
        wanted = {"--json": self.as_json, "--csv": self.csv is not None, "--wide": self.wide}
        named = [name for name, is_wanted in wanted.items() if is_wanted]
        if len(named) > 1:
            raise InvalidSettings(f"one of {', '.join(named)} can be given, not several.")

    def show(self, engine: sa.Engine, study: StudyRow, rows: Sequence[TrialRow], makers: tuple[Maker, Maker]) -> None:
        """Print or write trials; `makers` make the JSON document and the text of them."""
        from dashboards.terminal.trial_tables import WIDE
        from search.store.replayed import replayed_from

        document, text = makers
        if self.csv is not None:
            _write_csv(engine, study, rows, self.csv)
        elif self.wide:
            show_text(text(rows, replayed_from(study.settings), in_full=True), WIDE)
        else:
            output(self.as_json, document, text, rows, replayed_from(study.settings))


def _write_csv(engine: sa.Engine, study: StudyRow, rows: Sequence[TrialRow], path: Path) -> None:
    from dashboards.data.column_reader import read_columns
    from dashboards.report.trials_csv import trials_csv
    from workers.files import write_atomically

    text = trials_csv(read_columns(engine, study.name), [row.number for row in rows])
    write_atomically(path, text.encode(), retry="write it again")
    show_written(path)


def show(trial: TrialNumber, study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show one trial: why it was proposed, architecture, cost, learning curve, measurements, files."""
    from dashboards.data.beliefs import origin_text, reached_text
    from dashboards.terminal import documents, trial_panel
    from search.results.predictions import read_predictions
    from search.results.remarks import seen_by
    from search.store import reader
    from search.store.replayed import replayed_from

    engine, study_row, _ = open_named(study, storage)
    row = reader.find_trial(engine, study_row, trial)
    curve, latencies = reader.read_curve(engine, row.id), reader.read_latencies(engine, row.id)
    artifacts = reader.read_artifacts(engine, row.id)
    running = reader.read_attempts(engine, study_row.id, only_open=True, number=trial)
    report = running[-1].report if running else None
    parts, origin = (row, curve, latencies, artifacts, report), replayed_from(study_row.settings)
    proposal = read_predictions(engine, study_row.id, newest=1, up_to=trial).get(trial)
    later = reader.continued_by(engine, study_row.id, trial)
    went_on = None if later is None else f"went on as trial {later}"
    why = filter(None, (origin_text(row, proposal, study_row.settings), reached_text(row, proposal), went_on))
    seen = seen_by(engine, study_row, row)
    document = partial(documents.trial_detail_document, replayed=origin, proposal=proposal, seen=seen)
    output(as_json, document, partial(trial_panel.trial_panel, replayed=origin, why=tuple(why), seen=seen), *parts)


def pareto(
    study: StudyName = None,
    device: Annotated[
        str | None,
        typer.Option(help="Compare latencies on another device of the study.", show_default="the first"),
    ] = None,
    where: Where = None,
    sort: Sort = None,
    limit: Limit = None,
    wide: Wide = False,
    csv: Csv = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show the Pareto front: the networks that no other beats in accuracy, latency and macs.

    Networks that `quantize` put into other precisions are among them where they win.
    """
    from dashboards.terminal import documents, trial_tables
    from dashboards.terminal.choosing import chosen_trials
    from search.results.pareto import front_of_study, front_on
    from search.results.winning import front_rounded
    from search.store import reader

    engine, row, _ = open_named(study, storage)
    front = front_of_study(engine, row.id) if device is None else front_on(engine, row, device)
    if points := reader.read_points(engine, row.id):
        on = device or row.settings["latency"]["devices"][0]
        rounded = front_rounded(reader.read_trials(engine, row.id), points, on)
        front = sorted([*front, *rounded], key=lambda one: one.latency.median_ms if one.latency else 0.0)
    rows = chosen_trials(front, where or (), sort, limit)
    form = _Form(as_json, csv, wide)
    form.show(engine, row, rows, (documents.front_document, trial_tables.pareto_table))


def logs(trial: TrialNumber, study: StudyName = None, storage: Storage = None) -> None:
    """Print a trial's log file."""
    from search.store import reader
    from search.study_folders import trial_folder
    from workers.file_names import LOG_FILE

    engine, study_row, url = open_named(study, storage)
    row = reader.find_trial(engine, study_row, trial)
    path = trial_folder(stored_settings(study_row), url, trial) / LOG_FILE
    if not path.exists():
        raise TrialNotReady(f"trial {trial} is {row.state} and has no log at {path}.")
    sys.stdout.write(path.read_text(encoding="utf-8"))


def tensorboard(
    study: StudyName = None,
    out: Annotated[Path, typer.Option(help="The folder to write: STUDY/trial-NUMBER in it is a run.")] = Path(
        "tensorboard"
    ),
    storage: Storage = None,
) -> None:
    """Write the learning curves, settings and results of a study as TensorBoard's event files."""
    from search.event_files import check_tensorboard, write_runs
    from search.store import reader
    from search.store.replayed import replayed_folder, replayed_from
    from workers.files import disk_errors
    from workers.wording import counted

    check_tensorboard()
    if str(out) == "-":
        raise ReadOnlyFolder("--out must be a folder, because each trial's run has files of its own, but got -.")
    engine, row, _ = open_named(study, storage)
    with disk_errors(out):
        folder = out / row.name / replayed_folder(replayed_from(row.settings))
        rows = reader.read_trials(engine, row.id)
        written = write_runs(folder, rows, lambda trial: reader.read_curve(engine, trial.id))
    show_text(f"wrote {counted(written, 'run')}; see them with: {printed_command(['tensorboard', '--logdir', out])}")


# -- in a browser --


def dashboard(
    study: StudyName = None,
    storage: Storage = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8050,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="Text file with the token; without it CONDENSERY_DASHBOARD_TOKEN holds the token, or one is made."
        ),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Take away what the page can write: stars, notes, steering the search.")
    ] = False,
) -> None:
    """Serve the live page (budget, front, charts, trials) until Ctrl-C.

    Whoever opens the printed address can also star and note trials, enqueue, cancel and stop; all else only reads.
    """
    from dashboards.page import access_for, make_app, serve

    name, url = name_and_url(study, storage)
    words = shlex.join(database_words(url))
    access = access_for(host, token_file, read_only)
    serve(make_app(url, name, access, words), access, (host, port), say, open_browser)


def report(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            help="The study's name or study file, not needed if it is the only study; or up to four, which the page "
            "shows beside each other.",
            metavar="[STUDY]...",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write; - is standard output.")] = Path("report.html"),
    max_latency_ms: LatencyLimits = None,
    latency_statistic: Statistic = None,
    storage: Storage = None,
) -> None:
    """Write one HTML page that needs no server and no network: budget, front, charts, trials.

    Limits that are not given are the study's own; the page's readers can move them.
    """
    from dashboards.data.study_settings import devices_of
    from dashboards.report.report import write_report

    if studies is not None and len(studies) > 1:
        _report_several(studies, out, max_latency_ms or (), latency_statistic, storage)
        return
    engine, row, url = open_named(studies[0] if studies else None, storage)
    limits_ms = limits_by_device(max_latency_ms or (), devices_of(row.settings))
    words = shlex.join(database_words(url))
    write_report(engine, row.name, out, limits_ms, words, latency_statistic)
    show_written(out)


def _report_several(
    names: Sequence[str], out: Path, limits: Sequence[str], statistic: Any, storage: str | None
) -> None:
    """Write a report of several studies, which may be in several databases."""
    from dashboards.report.several import write_studies_report
    from dashboards.studies.fronts import compare_on

    if statistic is not None:
        raise InvalidSettings(
            "--latency-statistic is for the report of one study; several are compared by the upper ends of intervals."
        )
    studies = columns_named(names, storage)
    device, limit_ms = comparison_limit(studies, limits)
    write_studies_report(studies, compare_on(studies, None, device, limit_ms), out)
    show_written(out)
