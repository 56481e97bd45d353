"""Listening on an address, as both the devices' hub and the live page do."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import resource
import socket
import time
from collections.abc import Iterator

from space.errors import InvalidSettings

PENDING_MOST = 256  # connections that wait to be accepted
CONNECTIONS_MOST = 1000  # that are open at once, where the system allows a process so many files
LINES_A_MINUTE = 30  # of each logger that strangers can make write


def connections_most() -> int:
    """Return how many connections a server of this process may hold: at most half of the files that it may open."""
    return min(CONNECTIONS_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def raise_file_limit() -> None:
    """Allow this process as many open files as `CONNECTIONS_MOST` needs, if the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS_MOST if hard == resource.RLIM_INFINITY else min(4 * CONNECTIONS_MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 takes a free one.

    Raises:
        InvalidSettings: the address can't be listened on.
    """
    if not 0 <= port < 65_536:
        raise InvalidSettings(f"a port must be in 0..65535, but got {port}; choose another --port.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=PENDING_MOST)
    except OSError as error:
        is_wrong_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        option = "--host" if is_wrong_host else "--port"
        raise InvalidSettings(f"{host} port {port} can't be listened on ({error}); choose another {option}.") from None


def is_loopback(host: str) -> bool:
    """Return whether an address or a host's name is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def in_url(host: str) -> str:
    """Return a host as a URL has it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def limited_logs(*names: str) -> Iterator[None]:
    """Let each of these loggers write at most `LINES_A_MINUTE`: what strangers do must not fill a disk."""
    limits = {logging.getLogger(name): LimitedLines() for name in names}
    for logger, limit in limits.items():
        logger.addFilter(limit)
    try:
        yield
    finally:
        for logger, limit in limits.items():
            logger.removeFilter(limit)


class LimitedLines(logging.Filter):
    """Lets at most so many records a minute through; the first of the next minute says how many were left out."""

    def __init__(self, most: int = LINES_A_MINUTE) -> None:
        super().__init__()
        self._most, self._minute, self._count = most, 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to print a record."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            left_out = self._count - self._most
            self._minute, self._count = minute, 0
            if left_out > 0:
                record.msg, record.args = f"{record.getMessage()} ({left_out} lines before it were left out)", ()
        self._count += 1
        return self._count <= self._most
