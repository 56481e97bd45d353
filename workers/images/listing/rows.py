"""One line of a manifest, whatever form it has, and what all forms share."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from space.errors import DataNotFound, InvalidSettings
from workers.wording import agreeing, counted, one_line

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path", "file_path", "filepath", "img")
LABEL_COLUMNS = ("label", "class", "category", "choice", "class_name", "target")
NAMED = 3  # broken rows in a message


class Row(NamedTuple):
    """One line of a manifest, as it is written there; labels are those it gives the image, best one."""

    path: str
    labels: tuple[str, ...]
    where: str  # "line 3" or "image 7"
    split: str = ""
    group: str | None = None
    weight: str = ""


class Manifest(NamedTuple):
    """What a manifest holds. A tool's paths are often those of its own server: then only the files' names count."""

    rows: list[Row]
    is_tools: bool
    notes: tuple[str, ...] = ()  # what is to be said of how it was read


class BrokenRule(NamedTuple):
    """A rule, what to do, and the rows or records that break it."""

    rule: str
    advice: str
    rows: list[str]


def refuse(whose: str, broken: BrokenRule, noun: str = "row") -> None:
    """Raise DataNotFound if something breaks a rule: all that do are counted, and the first ones named."""
    if broken.rows:
        count = counted(len(broken.rows), noun)
        verb = agreeing(len(broken.rows), "doesn't", "don't")
        named = "; ".join(broken.rows[:NAMED])
        more = f"; and {len(broken.rows) - NAMED:,} more" if len(broken.rows) > NAMED else ""
        raise DataNotFound(
            f"each {noun} of {whose} must {broken.rule}, but {count} {verb} ({named}{more}); {broken.advice}."
        )


def called(path: Path) -> str:
    """Return what messages call a manifest."""
    return f"the manifest {str(path)!r}"


def text_of(path: Path) -> str:
    """Return a manifest's text.

    Raises:
        DataNotFound: it isn't there, or isn't UTF-8.
    """
    try:
        if path.exists() and not path.is_file():  # a device would be read for ever
            raise DataNotFound(f"the manifest {str(path)!r} must be a file, but is something else; name the file.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataNotFound(f"the manifest {str(path)!r} must be UTF-8, but isn't; save it as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataNotFound(
            f'the manifest {one_line(str(path), 300)!r} can\'t be read ({reason}): correct `dataset = "manifest:PATH"`'
        ) from None


def no_columns(path: Path, group: str) -> InvalidSettings:
    """Return the error that a group's column is named for a manifest that has no columns."""
    return InvalidSettings(
        f"data.group must be a column of a CSV manifest with columns path and label, but is {group!r}, and "
        f"{one_line(path.name)} is another export; leave it out."
    )


def unknown_form(path: Path, reason: str) -> DataNotFound:
    """Return the error that a manifest is of no form that is known."""
    return DataNotFound(
        f"the manifest {str(path)!r} must have columns path and label (and may have split, group, weight), or be of an "
        f"annotation tool's form, but {reason}; see docs/data.md."
    )
