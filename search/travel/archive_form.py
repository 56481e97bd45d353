"""What an archive of a study holds: a zip file whose manifest names every other member with its size and SHA-256.

condensery-archive.json         format, the study's name, where its database was, and the members below
rows/TABLE.jsonl                the study's rows of a table, a JSON object each (`search.store.whole_studies`)
files/...                       the study's files, by their paths in its folder
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MANIFEST = "condensery-archive.json"
FORMAT = 1
ROWS, FILES = "rows/", "files/"
CHUNK = 1 << 20  # bytes read at a time
_PART = re.compile(r"[^/\\\0]{1,255}")


@dataclass(frozen=True)
class Member:
    """One member besides the manifest."""

    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a manifest says."""

    study: str
    revision: str  # of the tables, the newest migration
    condensery: str  # version
    images: str | None  # the data set's path relative to the database's folder, where it is a path and there is one
    members: tuple[Member, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        members = {member.name: {"size": member.size, "sha256": member.sha256} for member in self.members}
        return {
            "format": FORMAT,
            "study": self.study,
            "revision": self.revision,
            "condensery": self.condensery,
            "images": self.images,
            "members": members,
        }

    @classmethod
    def from_dict(cls, values: Any) -> Manifest:
        """Return the manifest whose `to_dict` gave these values.

        Raises:
            ValueError: they are of something else, or name a member that could be written anywhere else.
        """
        try:
            if values["format"] != FORMAT:
                raise ValueError(f"its format is {str(values['format'])[:20]!r}, and this version reads {FORMAT}")
            members = tuple(
                Member(str(name), _natural(member["size"]), str(member["sha256"]))
                for name, member in values["members"].items()
            )
            texts = [values[name] for name in ("study", "revision", "condensery")]
            images = values["images"]
            if not all(isinstance(text, str) for text in (*texts, images or "")):
                raise TypeError
        except (KeyError, TypeError, AttributeError):
            raise ValueError("its manifest is none of an archive") from None
        for member in members:
            check_name(member.name)
        return cls(texts[0], texts[1], texts[2], images, members)

    def below(self, prefix: str) -> Sequence[Member]:
        """Return the members whose names begin so."""
        return [member for member in self.members if member.name.startswith(prefix)]


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value


def check_name(name: str) -> None:
    """Raise ValueError unless a member's name is a plain path below `rows/` or `files/`."""
    parts = name.split("/")
    plain = all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)
    if len(parts) < 2 or not plain or f"{parts[0]}/" not in (ROWS, FILES) or len(name) > 1000:
        raise ValueError(f"it names a member {name[:100]!r}, which is no file of a study")
