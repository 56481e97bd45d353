"""A chart's words in two parts: a caption of at most two lines, and the rest behind "How to read this"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_CAPTION = 150  # characters: two lines of the page's text
HOW = "How to read this"


@dataclass(frozen=True)
class Caption:
    """What stands below a chart, and the sentences that are shown when they are asked for."""

    short: str = ""
    rest: tuple[str, ...] = ()

    @classmethod
    def of(cls, notes: Sequence[str]) -> Caption:
        """Return sentences as a caption: the first ones that fit into it, in their order."""
        shown: list[str] = []
        for sentence in notes:
            if len(" ".join((*shown, sentence))) > LONGEST_CAPTION:
                break
            shown.append(sentence)
        return cls(" ".join(shown), tuple(notes[len(shown) :]))
