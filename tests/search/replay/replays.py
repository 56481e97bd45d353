"""A database in which a table is replayed, in this process or by the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search.launch import Launched, launch
from search.loop.callbacks import SilentCallback
from search.settings import StudySettings
from search.store import reader
from search.store.connection.database import open_for_reading, open_for_writing
from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from search.study_file import load_replay
from tests.command_line import run_command, run_here

WORDS = ["study.trainings=8", "search.startup=3", "engine.workers=3"]


@dataclass
class Replays:
    """A database in which a table is replayed."""

    table: Path
    url: str
    folder: Path

    def settings(self, *changes: str, table: Path | None = None) -> StudySettings:
        files = f"study.files={self.folder / 'files'}"
        return load_replay(str(table or self.table), None, [files, *WORDS, *changes])

    def launch(self, *changes: str, resume: bool = False, table: Path | None = None) -> Launched:
        return launch(self.settings(*changes, table=table), self.url, resume, SilentCallback())

    def study(self, name: str = "replay") -> StudyRow:
        engine = open_for_reading(self.url)
        try:
            return reader.find_study(engine, name)
        finally:
            engine.dispose()

    def rows(self, name: str = "replay") -> list[TrialRow]:
        engine = open_for_reading(self.url)
        try:
            return reader.read_trials(engine, reader.find_study(engine, name).id)
        finally:
            engine.dispose()

    def star(self, number: int, name: str = "replay") -> None:
        engine = open_for_writing(self.url)
        try:
            StudyStore(engine, reader.find_study(engine, name).id).set_star(number, True)
        finally:
            engine.dispose()

    def curves(self, name: str = "replay") -> dict[int, list[dict]]:
        engine = open_for_reading(self.url)
        try:
            return {row.number: reader.read_curve(engine, row.id) for row in self.rows(name)}
        finally:
            engine.dispose()


def command(replays: Replays, *words: str | Path):
    return run_command(*words, "--storage", replays.url, cwd=replays.folder)


def command_here(replays: Replays, *words: str | Path):
    """A command in this process, for what reads."""
    return run_here(*words, "--storage", replays.url, cwd=replays.folder)
