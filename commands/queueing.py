"""Configs that wait to be tried: enqueue, queue, withdraw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.common import AsJson, Storage, StudyName, open_named, output, say, store_named, stored_settings
from search.store.connection.printed_commands import printed_command
from space.documents import LARGEST
from space.errors import InvalidSettings, TrialNotFound
from workers.wording import counted

if TYPE_CHECKING:
    from search.store.rows import StudyRow
    from workers.settings import TrainingSettings


def enqueue(
    config: Annotated[str, typer.Argument(help="A config as JSON, or a JSON file of one; it may be incomplete.")],
    study: StudyName = None,
    training: Annotated[
        list[str] | None,
        typer.Option("--training", metavar="KEY=VALUE", help="A training setting, like epochs=20; may be repeated."),
    ] = None,
    storage: Storage = None,
) -> None:
    """Let the search try a config of yours next.

    What it leaves out is as in the best network so far, or in the middle of the space while there is none.
    """
    from search.enqueueing.configs import TRAINING, completed, read_config, why_refused
    from search.store import reader
    from search.study_file import override_value

    store, row, url = store_named(study, storage)
    settings = stored_settings(row)
    values = read_config(config if config.lstrip().startswith("{") else _content(Path(config)))
    for setting in training or ():
        override_value(values, f"{TRAINING}.{setting}")
    rows = reader.read_trials(store.engine, row.id)
    wanted = completed(values, settings, rows)
    _check_batch(wanted.training, row)
    number = store.enqueue(wanted.config, wanted.training.model_dump(mode="json"))
    inside = settings.search_space().contains(wanted.config)
    where = "" if inside else " (outside the space: the sampler won't learn from it)"
    when = "next" if store.is_running() else "when the study is launched again with --resume"
    say(
        f"{number}: {wanted.config}, {_training_words(wanted.training)}, is tried {when}{where}, beside the trainings "
        f"that the study wants; what you left out is from {wanted.source}"
    )
    for name, (there, here) in wanted.changed.items():
        say(f"   but {name} is {here} where it is {there} there, which doesn't go with what you gave")
    refused = why_refused(wanted, settings, rows)
    if refused is not None:
        take_back = printed_command(["condensery", "withdraw", str(number), row.name], url)
        say(f"   it won't be trained: {refused}; to take it back: {take_back}")


def _training_words(training: TrainingSettings) -> str:
    """Return the settings that candidates mostly differ in, in words."""
    epochs = counted(training.epochs, "epoch")
    return f"{epochs}, batch {training.batch_size}, learning rate {training.learning_rate:g}"


def _check_batch(training: TrainingSettings, study: StudyRow) -> None:
    """Raise InvalidSettings if a batch is larger than the study's training split."""
    images = (study.data_info or {}).get("train_images")
    if images is not None and training.batch_size > images:
        raise InvalidSettings(
            f"training.batch_size must be at most the number of training images, {images}, but is "
            f"{training.batch_size}; lower it."
        )


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(
            f"a config must be JSON or a JSON file, but {path} can't be read: {error}; check the path."
        ) from None


def queue(study: StudyName = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """List the configs that were enqueued and wait to be tried, the next one first."""
    from dashboards.terminal import documents, study_tables
    from search.store import reader

    engine, row, _ = open_named(study, storage)
    waiting = reader.read_waiting_requests(engine, row.id)
    output(as_json, documents.queue_document, study_tables.queue_table, waiting)


def withdraw(
    number: Annotated[
        int, typer.Argument(help="The enqueued config's number, as `queue` lists it.", min=1, max=LARGEST)
    ],
    study: StudyName = None,
    storage: Storage = None,
) -> None:
    """Take back a config that was enqueued and that no trial has taken up yet."""
    store, row, _ = store_named(study, storage)
    if not store.withdraw(number):
        waiting: list[Any] = store.pending_requests()
        there = f"there are {', '.join(str(one.id) for one in waiting[:10])}" if waiting else "none waits"
        raise TrialNotFound(f"no enqueued config {number} waits in study {row.name!r}; {there}.")
    say(f"{number} is withdrawn")
