"""Listening on an address, as both the devices' hub and the live page do."""

from __future__ import annotations

import errno
import ipaddress
import socket

from space.errors import InvalidSettings

PENDING_MOST = 256  # connections that wait to be accepted


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
