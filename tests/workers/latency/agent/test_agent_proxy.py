"""An agent where the environment names a proxy: it is used and named, and never on the way to its own machine."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tests.workers.agents import settings
from workers.latency.agent.serving.errors import Unreachable
from workers.latency.agent.serving.hub_client import HubClient
from workers.latency.agent.serving.journal import Journal
from workers.latency.agent.serving.service import serve_hub
from workers.latency.agent.serving.settings import proxy_of

NOBODY = "http://me:secret@127.0.0.1:9"  # no one listens there


@pytest.fixture(autouse=True)
def proxied(our_own_signals, monkeypatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", NOBODY)


def test_a_hub_on_this_machine_is_reached_without_the_proxy(hub, tmp_path):
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert [path for _, path in hub.calls] == ["/v1/enrol", "/v1/leases", "/v1/leave"]


def test_a_proxy_that_is_not_there_is_named_without_its_password(hub, tmp_path, capfd):
    client = HubClient(settings(hub, tmp_path, url="http://hub.example:8700"), "0" * 32, Journal())
    with pytest.raises(Unreachable) as refused:
        client.call("/v1/leases", {})
    assert "refused (by way of the proxy 127.0.0.1:9, which http_proxy names)" in str(refused.value)
    assert "by way of the proxy" in capfd.readouterr().err
    assert "secret" not in str(refused.value)


def test_what_a_proxy_answers_is_not_taken_for_the_hubs_word(hub, tmp_path, monkeypatch):
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_error(407)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = Thread(target=proxy.handle_request)
        thread.start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        client = HubClient(settings(hub, tmp_path, url="http://hub.example:8700"), "0" * 32, Journal())
        with pytest.raises(Unreachable, match=r"status 407 \(by way of the proxy 127\.0\.0\.1"):
            client.call("/v1/leases", {})
        thread.join()
    assert asked == ["http://hub.example:8700/v1/leases"]


@pytest.mark.parametrize(
    ("url", "exempt", "proxy"),
    [
        ("http://hub.example:8700", "", NOBODY),
        ("http://hub.example:8700", "example", None),
        ("http://192.168.1.10:8700", "192.168.1.10", None),
        ("https://hub.example", "", None),  # https_proxy isn't set
        ("http://127.0.0.7:8700", "", None),
        ("http://localhost:8700", "", None),
        ("http://[::1]:8700", "", None),
    ],
)
def test_which_proxy_an_address_is_reached_by(monkeypatch, url, exempt, proxy):
    monkeypatch.setenv("no_proxy", exempt)
    assert proxy_of(url) == proxy
