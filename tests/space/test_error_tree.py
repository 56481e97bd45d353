"""The exception tree: the table in the module is the truth that users and scripts read."""

from __future__ import annotations

import re

from space import errors
from space.errors import CondenseryError


def test_the_drawn_tree_lists_every_error_with_its_exit_code_and_parent():
    drawn = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)(\w+)(?: \(\w+\))? +(\d+)  ", line):
            depth = len(found[1]) // 4
            parents[depth:] = [found[2]]
            drawn[found[2]] = (int(found[3]), parents[depth - 1] if depth else "Exception")
    defined = {
        name: (error.exit_code, error.__bases__[0].__name__)
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, CondenseryError)
    }
    assert drawn == defined


def test_every_error_has_an_exit_code_of_its_own():
    codes = [error.exit_code for error in vars(errors).values() if isinstance(error, type)]
    assert len(set(codes)) == len(codes)
    assert not {0, 2, 130} & set(codes)  # done, wrong use, interrupted
