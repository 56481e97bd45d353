"""Counts in sentences: how messages, tables and pages say "1 thread" and "1,200 threads"."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # Unicode's bidirectional controls


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return "1 trial" or "1,200 trials".

    Args:
        number: how many there are.
        noun: what is counted, in the singular.
        plural: the noun's plural, where it isn't the singular with an s.
    """
    return f"{number:,} {agreeing(number, noun, plural or f'{noun}s')}"


def of_wanted(done: int, wanted: int, noun: str = "", verb: str = "") -> str:
    """Return "3 of 6 trainings done"; of more than were wanted, "7 trainings done, 1 more than wanted".

    Noun and verb may be left out.
    """
    number = f"{done:,} of {wanted:,}" if done <= wanted else f"{done:,}"
    plural = agreeing(wanted if done <= wanted else done, noun, f"{noun}s") if noun else ""
    words = " ".join(filter(None, (number, plural, verb)))
    return words if done <= wanted else f"{words}, {done - wanted:,} more than wanted"


def none_of(number: int, noun: str) -> str:
    """Return "none of the 3 trials"; of one trial or of none, "no trial"."""
    return f"none of the {counted(number, noun)}" if number > 1 else f"no {noun}"


def agreeing(number: int, singular: str, plural: str) -> str:
    """Return the form that agrees with a number: `agreeing(1, "fits", "fit")` is "fits"."""
    return singular if number == 1 else plural


def listed(names: Sequence[str], total: int | None = None, most: int = 3) -> str:
    """Return "a, b, c and 4 more": the first names as one harmless line, and how many others there are.

    Args:
        names: from users, so they may hold anything; each is cut to 80 characters.
        total: how many there are, where `names` are only the first of them.
        most: how many are named.
    """
    total = len(names) if total is None else total
    shown = ", ".join(one_line(name) for name in names[:most])
    rest = total - min(len(names), most)
    return f"{shown} and {rest:,} more" if rest and shown else shown


def has_controls(text: str) -> bool:
    """Whether text holds characters that end a line, steer a terminal, turn its direction or can't be written."""
    return any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in TURNING for letter in text)


def one_line(text: str, longest: int = 80) -> str:
    """Return text from a user as one printable line of at most `longest` characters, cut in the middle."""
    safe = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    half = longest // 2
    return safe if len(safe) <= longest else f"{safe[: half - 1]}…{safe[-half:]}"
