"""What strangers can do to the hub and to the page: how long these then take to answer, their memory and their log.

    python -m benchmarks.strangers           # a minute or two; prints one line for each attack

Each attack meets a server of its own, with 256 open files at most, and no token. A well-behaved caller asks meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

FILES = 256
ROOT = Path(__file__).parents[1]
HEAD = b"POST /v1/enrol HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BODY = HEAD + b"Content-Length: 8000000\r\n\r\n"
MEBIBYTE = 1 << 20


@contextlib.contextmanager
def served(words: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """A server of ours: its process, its address and the file of all that it prints."""
    log = folder / "log.txt"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CONDENSERY_STORAGE": f"sqlite:///{folder / 'study.db'}"}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))

    with log.open("wb") as out:
        command = [sys.executable, "-W", "ignore", str(ROOT / "condensery.py"), *words]
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder, preexec_fn=limit)
    try:
        while not (found := re.search(r"(http://127\.0\.0\.1:\d+)/?\n", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield process, found[1], log
    finally:
        process.kill()
        process.wait()


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def answer_s(address: str, most_s: float) -> str:
    """How long one call takes; "none in N s"."""
    began = time.monotonic()
    while time.monotonic() - began < most_s:
        try:
            urllib.request.urlopen(address, timeout=max(1.0, most_s - (time.monotonic() - began))).close()
            return f"{time.monotonic() - began:.2f} s"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return f"{time.monotonic() - began:.2f} s"
        except OSError:
            pass
        time.sleep(0.2)
    return f"none in {most_s:g} s"


def hold(address: str, count: int, sent: bytes, closing: contextlib.ExitStack) -> None:
    """Open connections that send something and no more."""
    port = int(address.rpartition(":")[2])
    for _ in range(count):
        try:
            connection = closing.enter_context(socket.create_connection(("127.0.0.1", port), timeout=2))
            connection.sendall(sent)
        except OSError:
            pass


def guess(address: str, count: int) -> None:
    for number in range(count):
        request = urllib.request.Request(f"{address}/v1/leave", b"{}", {"Authorization": f"Bearer {number}"})
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=10).close()


def attack(name: str, words: list[str], path: str, count: int, sent: bytes, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as closing:
        folder = Path(temporary)
        if words[0] == "dashboard":
            subprocess.run(
                [
                    sys.executable,
                    "-c",
                    f"from search.store.connection.database import open_for_writing as o; o('sqlite:///{folder}/study.db')",
                ],
                check=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        process, address, log = closing.enter_context(served(words, folder))
        quiet = answer_s(address + path, 60)
        before = memory_mb(process)
        if sent == b"guess":
            guess(address, count)
        else:
            hold(address, count, sent, closing)
        first = answer_s(address + path, seconds)
        time.sleep(3)
        grown, written = memory_mb(process) - before, log.stat().st_size
        print(
            f"{name:34} answers in {quiet} quiet, {first} attacked; {grown:+.0f} MB; log of {written:,} bytes",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="wait at most this long for an answer")
    seconds = parser.parse_args().seconds
    hub, page = ["devices", "serve", "--port", "0"], ["dashboard", "--port", "0"]
    attack("hub, 300 idle connections", hub, "/v1/health", 300, b"", seconds)
    attack("hub, 300 half heads", hub, "/v1/health", 300, HEAD, seconds)
    attack("hub, 120 unfinished 8 MB bodies", hub, "/v1/health", 120, BODY + b"x" * (8_000_000 - 1), seconds)
    attack("hub, 2,000 wrong tokens", hub, "/v1/health", 2000, b"guess", seconds)
    attack("page, 110 idle connections", page, "/", 110, b"", seconds)
    attack("page, 110 half heads", page, "/", 110, HEAD, seconds)


if __name__ == "__main__":
    main()
