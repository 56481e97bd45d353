"""A study's trainings as runs of other tools: MLflow's, and those of W&B, offline; each by its own package.

A run has the trial's architecture and training settings, its learning curve by epoch, and, once it is done, what
it is judged by, under the names that TensorBoard's event files have. Runs that were written before are left alone, so
writing again adds what is new. The packages are imported once they are asked for; neither may report its use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.event_files import SCALARS, Epoch, outcome_of_run, settings_of_run
from search.store.connection.database_errors import url_shown
from search.store.rows import TrialRow
from search.store.vocabulary import TrialState
from space.errors import DatabaseUnavailable, InvalidSettings
from workers.file_names import trial_folder

QUIET = {  # what keeps the packages from reporting their use, and from chatting, unless a user wants that
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}
AT_ONCE = 500  # metrics in one of MLflow's batches, which holds 1,000
LONGEST = 500  # letters of a parameter


@dataclass(frozen=True)
class TrackedRun:
    """One training as other tools see it."""

    number: int
    name: str
    state: str
    began_at: float  # UTC seconds since 1970, as the next
    ended_at: float
    settings: Mapping[str, Any]  # plain values
    outcome: Mapping[str, float]  # of the deployed network; {} unless the training is done
    curve: tuple[tuple[int, float, Mapping[str, float]], ...]  # epoch, UTC seconds, values
    replayed_from: str | None = None


def runs_of(
    rows: Iterable[TrialRow], curve_of: Callable[[TrialRow], Iterable[Epoch]], replayed_from: str | None = None
) -> list[TrackedRun]:
    """Return the trainings that have ended, early or not."""
    runs = []
    for row in rows:
        if row.state not in (TrialState.DONE, TrialState.PRUNED):
            continue
        began = row.started_at or row.asked_at
        curve = tuple((int(epoch["epoch"]), began + float(epoch["seconds"]), _values(epoch)) for epoch in curve_of(row))
        runs.append(
            TrackedRun(
                row.number,
                trial_folder(row.number),
                str(row.state),
                began,
                row.finished_at or began,
                settings_of_run(row),
                outcome_of_run(row) if row.state == TrialState.DONE else {},
                curve,
                replayed_from,
            )
        )
    return runs


def _values(epoch: Epoch) -> dict[str, float]:
    return {tag: float(epoch[column]) for tag, column in SCALARS.items() if epoch.get(column) is not None}


# --- MLflow -----------------------------------------------------------------------------------------------------


def write_mlflow(study: str, runs: Iterable[TrackedRun], uri: str) -> int:
    """Write runs into MLflow's experiment of the study's name; return how many are new.

    Args:
        study: its name.
        runs: of the study.
        uri: of MLflow's store or server, such as sqlite:///mlflow.db.

    Raises:
        InvalidSettings: the package mlflow isn't installed.
        DatabaseUnavailable: the store or server can't be used.
    """
    _keep_quiet()
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise _lacking("mlflow", "MLflow's runs") from None
    try:
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(study)
        key = client.create_experiment(study) if experiment is None else experiment.experiment_id
        written = _written_there(client, key)
        new = [run for run in runs if str(run.number) not in written]
        for run in new:
            _write_run(client, key, run)
    except (MlflowException, OSError, ValueError) as error:
        reason = " ".join(str(error).replace(uri, url_shown(uri)).split())[:200]
        raise DatabaseUnavailable(f"MLflow can't use {url_shown(uri)} ({reason}); correct --to.") from None
    return len(new)


def _written_there(client: Any, experiment: str) -> set[str]:
    """Return the numbers of the trials whose runs are whole; one that was cut off is deleted, and written again."""
    written, token = set[str](), None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        for run in page:
            number = run.data.tags.get("condensery.trial")
            if number is None:
                continue
            if run.info.status == "FINISHED":
                written.add(number)
            else:
                client.delete_run(run.info.run_id)
        token = page.token
        if not token:
            return written


def _write_run(client: Any, experiment: str, run: TrackedRun) -> None:
    from mlflow.entities import Metric, Param

    tags = {"condensery.trial": str(run.number), "condensery.state": run.state}
    tags |= {} if run.replayed_from is None else {"condensery.replayed_from": run.replayed_from}
    began, ended = round(run.began_at * 1000), round(run.ended_at * 1000)
    key = client.create_run(experiment, start_time=began, tags=tags, run_name=run.name).info.run_id
    params = [Param(name, str(value)[:LONGEST]) for name, value in run.settings.items()]
    metrics = [
        Metric(name, value, round(at * 1000), epoch)
        for epoch, at, values in run.curve
        for name, value in values.items()
    ]
    last = run.curve[-1][0] if run.curve else 0
    metrics += [Metric(name, value, ended, last) for name, value in run.outcome.items()]
    client.log_batch(key, params=params)
    for at in range(0, len(metrics), AT_ONCE):
        client.log_batch(key, metrics=metrics[at : at + AT_ONCE])
    client.set_terminated(key, "FINISHED", ended)


# --- W&B --------------------------------------------------------------------------------------------------------


def write_wandb(study: str, runs: Iterable[TrackedRun], folder: Path) -> int:
    """Write runs as W&B's offline runs below a folder; return how many are new. Nothing is sent anywhere.

    Args:
        study: its name, which becomes the project's.
        runs: of the study.
        folder: that gets a folder `wandb`.

    Raises:
        InvalidSettings: the package wandb isn't installed.
        OSError: the folder can't be written.
    """
    _keep_quiet()
    try:
        import wandb
    except ImportError:
        raise _lacking("wandb", "W&B's runs") from None
    folder.mkdir(parents=True, exist_ok=True)
    project = re.sub(r"[^\w.-]", "-", study)[:100]
    quiet = wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True
    )
    new = 0
    for run in runs:
        key = f"{project}-{run.number}"
        if any((folder / "wandb").glob(f"offline-run-*-{key}/{WHOLE}")):
            continue
        opened = wandb.init(
            mode="offline",
            dir=str(folder),
            project=project,
            name=run.name,
            id=key,
            settings=quiet,
            reinit="create_new",
            config={**run.settings, "replayed_from": run.replayed_from},
            tags=[run.state],
        )
        for epoch, at, values in run.curve:
            opened.log({**values, "_timestamp": at}, step=epoch)
        for name, value in {**run.outcome, "state": run.state}.items():
            opened.summary[name] = value
        place = Path(opened.dir).parent
        opened.finish()
        (place / WHOLE).touch()
        new += 1
    return new


WHOLE = "whole"  # an empty file in the folder of a run that was written to its end


def _keep_quiet() -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def _lacking(package: str, what: str) -> InvalidSettings:
    return InvalidSettings(f"{what} need the package {package}; pip install 'condensery[{package}]'.")
