"""TOML and JSON from outside: any text gives a document of plain values, or one clear reason why it doesn't.

- Whole numbers have 64 bits, as TOML promises and databases hold. Python's own have any size: one of 5,000 digits can't
  even be printed.
- Tables and lists lie at most `DEEPEST` levels in each other. Python ends what goes deeper than its stack.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Iterable
from typing import Any

LARGEST = 2**63 - 1
NEAR = 0.72  # the similarity of a misspelt word to what was meant (`difflib`)
DEEPEST = 50
TOO_DEEP = f"it nests more than {DEEPEST} levels of tables and lists"


class UnreadableDocument(ValueError):
    """A text is no document that can be used; `str()` is the reason, in one line without a full stop."""

    def __init__(self, reason: str, is_another_language: bool = False) -> None:
        super().__init__(reason)
        self.is_another_language = (
            is_another_language  # whether the text breaks the language's rules, not this module's
        )


def read_toml(text: str) -> dict[str, Any]:
    """Return a TOML text's content.

    Raises:
        UnreadableDocument: it is not TOML, or breaks a rule of this module.
    """
    document: dict[str, Any] = _read(tomllib.loads, text, "TOML")
    return document


def read_json(text: str | bytes) -> Any:
    """Return a JSON text's value.

    Raises:
        UnreadableDocument: it is not JSON, or breaks a rule of this module.
    """
    return _read(json.loads, text, "JSON")


def _read(loads: Callable[[Any], Any], text: str | bytes, language: str) -> Any:
    try:
        document = loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(error, language) from None
    check_document(document)
    return document


def check_document(document: Any) -> None:
    """Do nothing if plain values keep the rules of this module.

    Raises:
        UnreadableDocument: a number or the nesting breaks one.
    """
    level, depth = [document], 0
    while level:
        for value in level:
            if isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
                raise UnreadableDocument(
                    f"a whole number must lie between -2^63 and 2^63 - 1, not at {short_number(value)}"
                )
        containers = [value for value in level if isinstance(value, dict | list)]
        if containers and depth == DEEPEST:
            raise UnreadableDocument(TOO_DEEP)
        level = [item for value in containers for item in (value.values() if isinstance(value, dict) else value)]
        depth += 1


def short_number(number: int) -> str:
    """Return a whole number of any size as a short text."""
    if abs(number) < 10**18:
        return str(number)
    return f"{number:.3e}" if abs(number) < 10**300 else f"a number of {number.bit_length()} bits"


def _unreadable(error: Exception, language: str) -> UnreadableDocument:
    if isinstance(error, RecursionError):
        return UnreadableDocument(TOO_DEEP)
    if "integer string conversion" in str(error):  # Python refuses to read more digits
        return UnreadableDocument("a whole number must lie between -2^63 and 2^63 - 1, not have thousands of digits")
    return UnreadableDocument(f"it is not valid {language}: {error}", is_another_language=True)


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return "Did you mean `learning_rate`?" for a word that is nearly a valid one, else "Valid: …" with all."""
    names = list(valid)
    near = difflib.get_close_matches(word, names, n=1, cutoff=NEAR)
    return f"Did you mean `{near[0]}`?" if near else f"Valid: {', '.join(names)}."
