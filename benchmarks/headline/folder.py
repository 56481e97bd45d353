"""The work folder of a benchmark: it holds the searches of one form, of which only the numbers may grow."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.headline.form import PLAIN, Form
from space.errors import InvalidSettings

MAY_GROW = ("seeds", "trainings", "peer_trainings", "same")
_JOURNAL = re.compile(rf"{PLAIN}-(\d+)\.jsonl")  # of the search that begins first


def open_folder(form: Form, work: Path) -> None:
    """Make the folder, if there is none, for searches of this form.

    Raises:
        InvalidSettings: it holds searches of another form, or it can't be made or written.
    """
    path = work / "form.json"
    try:
        work.mkdir(parents=True, exist_ok=True)
        if path.exists():
            check_folder(form, work)
        else:
            path.write_text(json.dumps(_fixed(form), indent=1) + "\n")
    except OSError as error:
        raise InvalidSettings(f"--work must be a folder that can be written, but {_why(work, error)}.") from None


def check_folder(form: Form, work: Path) -> None:
    """Raise InvalidSettings unless the folder holds searches of this form."""
    path = work / "form.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InvalidSettings(
            f"{work} holds no searches of this benchmark; choose another folder for --work."
        ) from None
    except OSError as error:
        raise InvalidSettings(f"--work must be a folder that can be read, but {_why(work, error)}.") from None
    except ValueError:
        raise InvalidSettings(
            f"{path} must say what the searches are, but isn't JSON; choose another folder."
        ) from None
    if found != _fixed(form):
        raise InvalidSettings(f"{work} holds searches of another form; choose another folder for --work.")


def seeds_in(work: Path) -> int:
    """Return how many seeds are there, which are counted from 0."""
    found = (_JOURNAL.fullmatch(path.name) for path in work.iterdir())
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _fixed(form: Form) -> dict[str, Any]:
    return {name: value for name, value in asdict(form).items() if name not in MAY_GROW}


def _why(work: Path, error: OSError) -> str:
    return f"{error.filename or work}: {error.strerror or error}"
