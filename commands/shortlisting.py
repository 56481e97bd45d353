"""The shortlist: trials that a user stars, and notes about them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from commands.common import AsJson, Storage, open_named, output, say, store_named
from space.errors import InvalidSettings

if TYPE_CHECKING:
    from search.store.rows import TrialRow


def note(
    trial: Annotated[
        int | None, typer.Argument(help="The trial's number; without it, the shortlist is shown.", min=0)
    ] = None,
    text: Annotated[str | None, typer.Argument(help="What to note, in place of an earlier note.")] = None,
    star: Annotated[
        bool | None, typer.Option("--star/--unstar", help="Put the trial on the shortlist, or off.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take its star and its note away.")] = False,
    study: Annotated[
        str | None, typer.Option(help="The study's name or study file; not needed if it is the only study.")
    ] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Star a trial and note something about it; or show what was starred and noted."""
    from search.store.reader import find_trial

    if trial is None:
        if star is not None or clear:
            raise InvalidSettings("--star, --unstar and --clear need a trial's number; give it.")
        _show_shortlist(study, storage, as_json)
    elif text is None and star is None and not clear:
        engine, row, _ = open_named(study, storage)
        output(as_json, _document, _words, find_trial(engine, row, trial))
    else:
        _change(trial, text, star, clear, study, storage)
        if as_json:
            engine, row, _ = open_named(study, storage)
            output(True, _document, _words, find_trial(engine, row, trial))


def _show_shortlist(study: str | None, storage: str | None, as_json: bool) -> None:
    from dashboards.terminal import documents, trial_tables
    from search.store import reader
    from search.store.replayed import replayed_from

    engine, row, _ = open_named(study, storage)
    rows = reader.read_trials(engine, row.id, numbers=list(reader.read_shortlist(engine, row.id)))
    output(as_json, documents.trials_document, trial_tables.shortlist_table, rows, replayed_from(row.settings))


def _change(
    trial: int, text: str | None, star: bool | None, clear: bool, study: str | None, storage: str | None
) -> None:
    from search.store.notes import valid_note
    from search.store.reader import find_trial

    if clear and (text is not None or star is not None):
        raise InvalidSettings("--clear takes star and note away; give it without a text, --star and --unstar.")
    kept = None if text is None else valid_note(text)
    store, row, _ = store_named(study, storage)
    find_trial(store.engine, row, trial)
    if clear:
        store.clear_note(trial)
        say(f"trial {trial} has neither star nor note")
        return
    if kept is not None:
        store.set_note(trial, kept)
        say(f"noted about trial {trial}" if kept else f"the note about trial {trial} is gone")
    if star is not None:
        store.set_star(trial, star)
        say(f"trial {trial} is {'on' if star else 'off'} the shortlist")


def _document(row: TrialRow) -> dict[str, object]:
    return {"number": row.number, "starred": row.starred, "note": row.note or None}


def _words(row: TrialRow) -> str:
    from dashboards.formats import STARRED, one_line

    lines = map(partial(one_line, longest=2000), row.note.splitlines())
    said = [STARRED] if row.starred else []
    return "\n".join([*said, *lines]) or f"trial {row.number} has neither star nor note"
