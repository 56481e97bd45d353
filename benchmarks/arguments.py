"""Forms of arguments that several benchmarks take."""

from __future__ import annotations

import argparse


def at_least_one(text: str) -> int:
    """Return a number of at least 1."""
    return _at_least(1, int(text))


def not_negative(text: str) -> int:
    """Return a number of at least 0."""
    return _at_least(0, int(text))


def _at_least(least: int, number: int) -> int:
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, but got {number}")
    return number


def names(text: str) -> list[str]:
    """Return names that commas separate."""
    return [name.strip() for name in text.split(",") if name.strip()]


def pair(text: str) -> tuple[str, str]:
    """Return the name and the value of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"NAME=VALUE must hold, but got {text!r}")
    return name, value
