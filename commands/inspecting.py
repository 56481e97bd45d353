"""Looking at a study: status, trials, show, pareto, logs."""

from __future__ import annotations

import sys

from commands.common import (
    AsJson,
    Storage,
    StudyName,
    TrialNumber,
    name_and_url,
    open_named,
    print_json,
    show_text,
    stored_settings,
)
from space.errors import TrialNotReady


def status(study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show how a study stands; without a name, every study of the database."""
    from dashboards.terminal import documents, study_tables
    from search.store import reader
    from search.store.database import open_for_reading

    name, url = name_and_url(study, storage)
    studies = reader.list_studies(open_for_reading(url)) if name is None else []
    if name is None and len(studies) != 1:
        if as_json:
            print_json(documents.studies_document(studies))
        else:
            show_text(study_tables.studies_table(studies))
        return
    engine, found, _ = open_named(study, storage)
    standing = reader.read_status(engine, found.id)
    if as_json:
        print_json(documents.study_document(found, standing))
    else:
        show_text(study_tables.status_panel(found, standing))


def trials(study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """List a study's trials."""
    from dashboards.terminal import documents, trial_tables
    from search.store import reader

    engine, found, _ = open_named(study, storage)
    rows = reader.read_trials(engine, found.id)
    if as_json:
        print_json(documents.trials_document(rows))
    else:
        show_text(trial_tables.trials_table(rows))


def show(trial: TrialNumber, study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show one trial: architecture, cost, learning curve, measurements, files."""
    from dashboards.terminal import documents, trial_tables
    from search.store import reader

    engine, found, _ = open_named(study, storage)
    row = reader.find_trial(engine, found, trial)
    curve, latencies = reader.read_curve(engine, row.id), reader.read_latencies(engine, row.id)
    artifacts = reader.read_artifacts(engine, row.id)
    if as_json:
        print_json(documents.trial_detail_document(row, curve, latencies, artifacts))
    else:
        show_text(trial_tables.trial_panel(row, curve, latencies, artifacts))


def pareto(study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show the Pareto front: the networks that no other beats in accuracy, latency and macs."""
    from dashboards.terminal import documents, trial_tables
    from search.results.pareto import front_of_study

    engine, found, _ = open_named(study, storage)
    front = front_of_study(engine, found.id)
    if as_json:
        print_json(documents.front_document(front))
    else:
        show_text(trial_tables.pareto_table(front))


def logs(trial: TrialNumber, study: StudyName = None, storage: Storage = None) -> None:
    """Print a trial's log file."""
    from search.launch import trial_folder
    from search.store import reader
    from workers.file_names import LOG_FILE

    engine, found, url = open_named(study, storage)
    row = reader.find_trial(engine, found, trial)
    path = trial_folder(stored_settings(found), url, trial) / LOG_FILE
    if not path.exists():
        raise TrialNotReady(f"trial {trial} is {row.state} and has no log at {path}.")
    sys.stdout.write(path.read_text(encoding="utf-8"))
