"""A C compiler that doesn't optimise, for tests that compile a kernel often and don't ask how fast it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

SCRIPT = """#!/bin/sh
for word; do
  shift
  [ "$word" = -O3 ] && word=-O0
  set -- "$@" "$word"
done
exec {compiler} "$@"
"""


def hasty_compiler(folder: Path) -> Path:
    """Write it into `folder`; the environment's CC may name it. It is the machine's own compiler with -O0."""
    path = folder / "hasty-cc"
    path.write_text(SCRIPT.format(compiler=shutil.which("cc") or "gcc"))
    path.chmod(0o755)
    return path
