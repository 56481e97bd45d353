"""A hub under strangers: whatever they hold open, half send or guess, it answers its devices, small and quiet."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.devices import registry
from tests.certificates import self_signed
from tests.search.devices.test_device_hub_process import ONE
from tests.search.hub_process import HubProcess, Strangers
from tests.search.tiny_devices import Desk
from tests.search.tiny_studies import sqlite_url
from tests.waiting import until

FILES = 128  # that the hub may have open
BEGUN = b"POST /v1/enrol HTTP/1.1\r\nHost: hub\r\n"
WITH_BODY = BEGUN + b"Content-Length: 8000000\r\n\r\n"
pytestmark = pytest.mark.slow(seconds=4)


@pytest.fixture
def desk(desk_at_present: Desk) -> Desk:
    return desk_at_present


@pytest.fixture
def start(tmp_path: Path, desk: Desk) -> Iterator[Any]:
    hubs: list[HubProcess] = []

    def start(patience_s: float | None = None, tls: tuple[Path, ...] = ()) -> HubProcess:
        hubs.append(HubProcess(sqlite_url(tmp_path), tmp_path, tls=tls, strangers=Strangers(FILES, patience_s)))
        return hubs[-1]

    yield start
    for hub in hubs:
        hub.kill()
        hub.wait()


@contextlib.contextmanager
def strangers(hub: HubProcess, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Connections that have sent something, and send no more."""
    with contextlib.ExitStack() as closing:
        sockets = []
        for _ in range(count):
            sockets.append(closing.enter_context(socket.create_connection(("127.0.0.1", hub.port), timeout=30)))
            with contextlib.suppress(ConnectionError):  # the hub has hung up on it already
                sockets[-1].sendall(sent)
        yield sockets


def health(hub: HubProcess, context: ssl.SSLContext | None = None) -> int:
    with urllib.request.urlopen(hub.address + "/v1/health", timeout=10, context=context) as response:
        return response.status


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1000) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_more_connections_than_the_hub_has_files_leave_it_answering(start: Any):
    hub = start()
    for sent in (b"", BEGUN, WITH_BODY, WITH_BODY + b"x" * 60_000):
        with strangers(hub, 3 * FILES, sent):
            assert [health(hub) for _ in range(3)] == [200] * 3
    assert hub.end(15) == (0, "")


def test_whoever_sends_too_slowly_is_hung_up_on(start: Any):
    hub = start(patience_s=0.3)
    for sent in (b"", BEGUN, WITH_BODY):
        with strangers(hub, 3, sent) as sockets:
            until(lambda sockets=sockets: all(map(is_closed, sockets)), within_s=30)
    with strangers(hub, 1, WITH_BODY) as (slow,):  # a byte now and then wins no time
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 30:
                slow.sendall(b"x")
                time.sleep(0.05)
    assert time.monotonic() - began < 30


def test_a_call_over_one_connection_after_another_is_not_hung_up_on(start: Any, desk: Desk):
    hub = start(patience_s=2.0)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)) as kept:
        kept.connect()
        first = kept.sock
        for _ in range(30):
            kept.request("GET", "/v1/health")
            with kept.getresponse() as response:
                assert (response.status, len(response.read()) > 0) == (200, True)
            time.sleep(0.1)
        assert kept.sock is first


def test_long_bodies_of_strangers_are_not_kept(start: Any, desk: Desk):
    hub = start()
    before = memory_kb(hub)
    body = b"x" * 7_900_000
    with contextlib.ExitStack() as closing:
        for _ in range(20):  # 158 MB in all
            connection = closing.enter_context(socket.create_connection(("127.0.0.1", hub.port), timeout=30))
            with contextlib.suppress(ConnectionError):
                connection.sendall(WITH_BODY + body)
        assert memory_kb(hub) - before < 30_000
    token = registry.add_device(desk.engine, "pi", "pi5")
    status, answer = hub.call(token, "/v1/enrol", {"instance": ONE, "text": "x" * 1_000_000})
    assert (status, "text" in json.dumps(answer)) == (422, True)  # read whole: it is a device's


def test_wrong_tokens_fill_no_log(start: Any):
    hub = start()
    for _ in range(100):
        assert hub.call("wrong", "/v1/leave", {"instance": ONE})[0] == 401
    lines = hub.errors.read_text().splitlines()
    assert 1 <= len(lines) <= 60  # at most two minutes have begun
    assert "from 127.0.0.1" in lines[0]


def test_connections_without_a_handshake_leave_a_hub_with_tls_answering(start: Any, tmp_path: Path):
    hub_certificate = self_signed(tmp_path)
    hub = start(tls=hub_certificate)
    context = ssl.create_default_context(cafile=hub_certificate[0])
    with strangers(hub, FILES // 2, b""):
        assert health(hub, context) == 200


def memory_kb(hub: HubProcess) -> int:
    lines = Path(f"/proc/{hub._process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
