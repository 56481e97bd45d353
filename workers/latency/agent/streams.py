"""Standard streams that a program can rely on, whatever it was started with.

- A stream that was closed is the system's null device. Otherwise the next file that is opened would get its number, and
  whatever a library writes to standard error would go into that file.
- A message never ends the work: what standard error can't take any more is dropped.
- Standard output holds the data, so an error there is one, and names it.
- What a stream's encoding lacks is written as an escape, such as a byte of a file name that isn't UTF-8.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

STDOUT_NAME = "standard output"  # the file name in an error of writing to it


class _Output(io.FileIO):
    """Standard output, whose errors name it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            raise OSError(error.errno, error.strerror, STDOUT_NAME) from None


class _Messages(io.FileIO):
    """Standard error, which takes everything."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data) or 0
        return memoryview(data).nbytes


def open_streams() -> None:
    """Give this process the three standard streams as the module describes them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  a number, and open to the end
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr, line_buffering=True)


def drop_output() -> None:
    """Send what standard output still holds, and whatever follows, to nowhere."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def _text(raw: io.FileIO, before: Any, line_buffering: bool = False) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    whole_lines = line_buffering or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=whole_lines)
