"""What a user asks of a search, by a command or from the page: try this config, give up that trial, stop.

Whoever runs the search reads these wishes from the database, four times a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.enqueueing.configs import Completed, completed, why_refused
from search.settings import StudySettings
from search.store.connection.database import open_for_reading, open_for_writing
from search.store.connection.database_errors import database_errors, driver_errors
from search.store.connection.printed_commands import printed_command
from search.store.reader import find_study, find_trial, read_trials
from search.store.rows import StudyRow
from search.store.store import StudyStore
from search.store.vocabulary import FINAL_STATES, TrialState
from search.study_file import settings_from
from space.documents import short_number
from space.errors import InvalidSettings, TrialNotFound, TrialNotReady
from workers.processes import host_and_pid
from workers.settings import TrainingSettings
from workers.wording import counted


@contextlib.contextmanager
def opened_to_write(url: str, name: str) -> Iterator[tuple[StudyStore, StudyRow]]:
    """Yield a study of a database that is there already, over a connection of its own that is closed afterwards.

    Raises:
        StudyNotFound: there is none of this name. Those of `open_for_reading` and `open_for_writing`.
    """
    with contextlib.ExitStack() as closing:
        with database_errors(url):
            reading = open_for_reading(url)  # which makes no file where there is none, as a writer would
            closing.callback(reading.dispose)
            study = find_study(reading, name)
            engine = open_for_writing(url)
            closing.callback(engine.dispose)
        with driver_errors(url):
            yield StudyStore(engine, study.id), study


@dataclass(frozen=True)
class Plan:
    """A config as the search would try it, and what is to be known of it."""

    wanted: Completed
    outside: bool  # of the search space
    refused: str | None  # why it won't be trained, as far as that is known; None: it may be

    def __str__(self) -> str:
        """Return it in the settings that candidates mostly differ in."""
        training = self.wanted.training
        epochs = counted(training.epochs, "epoch")
        return f"{self.wanted.config}, {epochs}, batch {training.batch_size}, learning rate {training.learning_rate:g}"

    @property
    def where(self) -> str:
        """What follows from its being outside the space; "" inside it."""
        return " (outside the space: the sampler won't learn from it)" if self.outside else ""

    @property
    def remarks(self) -> list[str]:
        """What is other than where the rest of the config is from, because of what was given."""
        return [
            f"but {name} is {here} where it is {there} there, which doesn't go with what you gave"
            for name, (there, here) in self.wanted.changed.items()
        ]

    @property
    def refusal(self) -> str:
        """That it won't be trained, and why; "" where it may be."""
        return "" if self.refused is None else f"it won't be trained: {self.refused}"


def plan_of(engine: sa.Engine, study: StudyRow, values: Mapping[str, Any]) -> Plan:
    """Return how a study would try a config; `values` are of its JSON, `training` among them.

    Raises:
        InvalidConfig, InvalidSettings: see `enqueueing.configs.completed`; and a batch is larger than the split.
    """
    settings, rows = _settings(study), read_trials(engine, study.id)
    wanted = completed(values, settings, rows)
    _check_batch(wanted.training, study)
    outside = not settings.search_space().contains(wanted.config)
    return Plan(wanted, outside, why_refused(wanted, settings, rows))


def enqueue(store: StudyStore, plan: Plan) -> int:
    """Leave a config for the search to try next; return the number that it waits under."""
    return store.enqueue(plan.wanted.config, plan.wanted.training.model_dump(mode="json"))


def withdraw(store: StudyStore, study: StudyRow, number: int) -> str:
    """Take back an enqueued config; return that it is done, as a sentence.

    Raises:
        TrialNotFound: none waits under this number.
    """
    if not store.withdraw(number):
        waiting = store.pending_requests()
        there = f"there are {', '.join(str(one.id) for one in waiting[:10])}" if waiting else "none waits"
        raise TrialNotFound(f"no enqueued config {short_number(number)} waits in study {study.name!r}; {there}.")
    return f"{number} is withdrawn"


def cancel(store: StudyStore, study: StudyRow, number: int) -> str:
    """Give up an open trial, or have the running search do so; return which, as a sentence.

    Raises:
        TrialNotFound: there is none of this number. TrialNotReady: it has ended.
    """
    row = find_trial(store.engine, study, number)
    if row.state in FINAL_STATES:
        raise TrialNotReady(f"trial {number} is {row.state} already; only an open trial can be cancelled.")
    if store.is_running():
        store.request_cancel(number)
        return f"asked the running study to cancel trial {number}"
    store.finish(number, TrialState.CANCELLED, reason="cancelled by the user")
    return f"trial {number} is cancelled"


def stop(store: StudyStore, study: StudyRow) -> str:
    """Ask the running search to stop cleanly; return who was asked, as a sentence."""
    owner = store.request_stop()
    if owner is None:
        return f"study {study.name!r} is not running"
    return f"asked {host_and_pid(owner)} (host:pid) to stop study {study.name!r}"


def resume_command(study: StudyRow, database: str = "") -> str:
    """Return the command that goes on with a study.

    Args:
        study: which study; where its file is isn't recorded, so study.toml stands for it, unless a table is replayed.
        database: the option that names the database, quoted for a shell.
    """
    table = study.settings.get("replay", {}).get("table")
    source = ["study.toml"] if table is None else ["--replay", str(table)]
    return " ".join(filter(None, (printed_command(["condensery", "launch", *source, "--resume"]), database)))


def _settings(study: StudyRow) -> StudySettings:
    return settings_from(study.settings, "the stored settings")


def _check_batch(training: TrainingSettings, study: StudyRow) -> None:
    """Raise InvalidSettings if a batch is larger than the study's training split."""
    images = (study.data_info or {}).get("train_images")
    if images is not None and training.batch_size > images:
        raise InvalidSettings(
            f"training.batch_size must be at most the number of training images, {images}, but is "
            f"{training.batch_size}; lower it."
        )
