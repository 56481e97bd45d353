"""How far a pass over a data set's images is, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

PLAIN_PROGRESS_S = 10.0  # seconds between lines where stderr is no terminal


@contextmanager
def progress(
    doing: str, label: str, total: int, interval_s: float = PLAIN_PROGRESS_S
) -> Iterator[Callable[[int], None]]:
    """Show on stderr how many of `total` images are done: a bar on a terminal, else a line every `interval_s`.

    Args:
        doing: what is done to them, such as "Decoding".
        label: of the data set.
        total: images.
        interval_s: seconds between lines where stderr is no terminal.

    Yields a function that is told how many more are done; less than 0 where these will be done again.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(f"{doing} {escape(label)}", total=total)
            yield lambda images: bar.update(task, advance=images)  # advance() would take less than 0 for a speed
        return
    done, last_s = 0, time.monotonic()

    def advance(images: int) -> None:
        nonlocal done, last_s
        done += images
        if time.monotonic() - last_s >= interval_s:
            last_s = time.monotonic()
            sys.stderr.write(f"{doing} {label}: {done:,} of {total:,} images\n")

    yield advance
