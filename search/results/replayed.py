"""Trials of replayed studies, which have no network: what to say of one, and the study file that trains it for real."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from search.settings import FORMAT
from search.store.replayed import replayed_from
from search.store.rows import StudyRow, TrialRow
from search.store.tables import study, trial
from search.study_file import settings_from
from space.errors import NothingTrained
from space.space_settings import settings_of_network

FILE = "train.toml"  # in the commands that are shown


def refuse_replayed(of: StudyRow, row: TrialRow, words: Sequence[str] = (), wanted: str = "") -> None:
    """Raise NothingTrained if a trial's study was replayed: there is no network to hand over.

    Args:
        of: the trial's study.
        row: the trial.
        words: what names the database in a command.
        wanted: what the trial would be, such as "the most accurate inside 0.1 ms".
    """
    table = replayed_from(of.settings)
    if table is not None:
        raise NothingTrained(_explanation(of.name, row, table, shlex.join(words), wanted))


def refuse_if_replayed(engine: sa.Engine, row: TrialRow) -> None:
    """Raise NothingTrained if a trial's study was replayed; the study is looked up."""
    query = sa.select(study.c.name, study.c.settings).join(trial, trial.c.study_id == study.c.id)
    with engine.connect() as connection:
        found = connection.execute(query.where(trial.c.id == row.id)).one()
    table = replayed_from(json.loads(found.settings))
    if table is not None:
        raise NothingTrained(_explanation(found.name, row, table, "", ""))


def _explanation(name: str, row: TrialRow, table: str, words: str, wanted: str) -> str:
    command = training_command(name, str(row.number), words)
    top1 = "" if row.top1 is None else f", top-1 {row.top1:.2%} there"
    return (
        f"study {name!r} was replayed from {table}, so there is no trained network to hand over. Trial {row.number}"
        f"{wanted and f', {wanted},'} is {row.config}{top1}; to train it for real: {command}"
    )


def training_command(study_name: str, number: str, words: str = "") -> str:
    """Return the command that trains a replayed trial's network for real; `words` name the database in it."""
    of = " ".join(filter(None, (shlex.join(["--study", study_name]), words)))
    return f"condensery init {FILE} --trial {number} {of} && condensery launch {FILE}"


def training_file(of: StudyRow, row: TrialRow) -> str:
    """Return a study file that trains one trial's network, and nothing else, with its settings and seed."""
    settings = settings_from(of.settings, "the stored settings")
    config = row.config
    data = settings.data.model_dump(mode="json", exclude_none=True)
    device = json.dumps(settings.latency.devices[0])
    replayed = settings.replay.table is not None
    lines = [
        f"# Trains the network of trial {row.number} of the study {json.dumps(of.name, ensure_ascii=False)}: {config}.",
        "# `condensery launch` runs it, and `condensery pick` then hands the network over.",
        f"format = {FORMAT}",
        *_table("study", {"name": f"{of.name[:80]}-trial-{row.number}", "trainings": 1, "seed": row.seed}),
        *_table("data", data),
        *_table("space", settings_of_network(config)),
        *_table("training", row.training),
        "",
        "[latency]",
        f'devices = ["host"]  # this machine; {device} is where the {"table" if replayed else "study"} has it from',
    ]
    return "\n".join(lines) + "\n"


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    """Return a table of plain values as TOML; JSON's forms are TOML's, but for DEL."""
    written = {key: json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") for key, value in values.items()}
    return ["", f"[{name}]", *(f"{key} = {value}" for key, value in written.items())]
