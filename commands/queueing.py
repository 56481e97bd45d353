"""Configs that wait to be tried: enqueue, queue, withdraw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.common import AsJson, Storage, StudyName, open_named, output, say, store_named
from search.store.connection.printed_commands import printed_command
from space.documents import LARGEST
from space.errors import InvalidSettings


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
    from search.enqueueing import steering
    from search.enqueueing.configs import TRAINING, read_config
    from search.study_file import override_value

    store, row, url = store_named(study, storage)
    values = read_config(config if config.lstrip().startswith("{") else _content(Path(config)))
    for setting in training or ():
        override_value(values, f"{TRAINING}.{setting}")
    plan = steering.plan_of(store.engine, row, values)
    number = steering.enqueue(store, plan)
    when = "next" if store.is_running() else "when the study is launched again with --resume"
    say(
        f"{number}: {plan}, is tried {when}{plan.where}, beside the trainings that the study wants; what you left out "
        f"is from {plan.wanted.source}"
    )
    for remark in plan.remarks:
        say(f"   {remark}")
    if plan.refusal:
        take_back = printed_command(["condensery", "withdraw", str(number), row.name], url)
        say(f"   {plan.refusal}; to take it back: {take_back}")


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
    from search.enqueueing import steering

    store, row, _ = store_named(study, storage)
    say(steering.withdraw(store, row, number))
