"""The calls to a hub: each returns the hub's answer, or raises why there is none."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from workers.latency.agent.serving.errors import HubRefuses, TokenRefused, Unreachable, WrongUse
from workers.latency.agent.serving.journal import Journal, plain
from workers.latency.agent.serving.protocol import LARGEST_MODEL, PROTOCOL, Model
from workers.latency.agent.serving.settings import HubSettings, proxy_of

_LONGEST_ANSWER = 8 << 20  # bytes, of anything but a model
_SLOWEST_MODEL = 10_000  # bytes a second: a download that is slower is broken off and tried again
_AWAY = (502, 503, 504)  # the hub, or its database: it is waited for, however long
WRONG_ADDRESS = "is the address right? --hub takes it as `devices serve` prints it, without a path"


class HubClient:
    """Calls a hub as one agent; a call without an answer raises Unreachable, HubRefuses or TokenRefused."""

    def __init__(self, settings: HubSettings, instance: str, journal: Journal) -> None:
        class NoRedirects(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None  # the token and the models are for this address alone

        scheme, proxy = settings.url.partition(":")[0], proxy_of(settings.url)
        proxies = urllib.request.ProxyHandler({} if proxy is None else {scheme: proxy})
        handlers: list[urllib.request.BaseHandler] = [NoRedirects(), proxies]
        if settings.url.startswith("https:"):
            try:
                context = ssl.create_default_context(cafile=settings.cafile)
            except OSError as error:  # ssl's own errors included
                rule = f"--cafile must hold PEM certificates, but {settings.cafile} does not"
                raise WrongUse(f"{rule}: {error}; name a file that does") from None
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)
        self._url, self._token, self._call_s = settings.url, settings.token, settings.call_s
        self._instance, self._journal = instance, journal
        # What a proxy says must not be taken for the hub's word; its address may have a password before the @.
        shown = plain((proxy or "").rpartition("@")[2].rpartition("//")[2], 100)
        self._by_way_of = f" (by way of the proxy {shown}, which {scheme}_proxy names)" if proxy else ""

    def call(self, path: str, body: dict[str, Any], call_s: float | None = None) -> dict[str, Any]:
        """Post a JSON object with the agent's instance added; return the JSON object of the answer."""
        content = json.dumps({"instance": self._instance, **body}, allow_nan=False).encode()
        call_s = call_s or self._call_s
        with self._conversation(path, content, call_s) as reply:
            text = b"".join(_received(reply, _LONGEST_ANSWER, call_s))
            try:
                answer = json.loads(text)
            except (ValueError, RecursionError):
                answer = None
            if not isinstance(answer, dict):
                raise Unreachable(f"{path} answered something that is no JSON object")
            return answer

    def download(self, model: Model) -> Iterator[bytes]:
        """Yield a model's bytes as they come; the caller checks that they are the model's."""
        with self._conversation(f"/v1/models/{model.sha256}", None, self._call_s) as reply:
            yield from _received(reply, LARGEST_MODEL, 2 * self._call_s + model.size / _SLOWEST_MODEL)

    @contextlib.contextmanager
    def _conversation(self, path: str, content: bytes | None, call_s: float) -> Iterator[Any]:
        try:
            with self._open(path, content, call_s) as reply:
                yield reply
        except Unreachable as error:
            trouble = Unreachable(f"{error}{self._by_way_of}", error.is_hub_error)
            self._journal.unreachable(str(trouble))
            raise trouble from None
        except (HubRefuses, TokenRefused):
            self._journal.reached()
            raise
        self._journal.reached()

    def _open(self, path: str, content: bytes | None, call_s: float) -> Any:
        request = urllib.request.Request(self._url + path, content, {"User-Agent": f"condensery-agent/{PROTOCOL}"})
        request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        if content is not None:
            request.add_header("Content-Type", "application/json")
        try:
            return self._opener.open(request, timeout=call_s)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error, call_s) from None
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an impossible host name
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, ssl.SSLCertVerificationError):
                why = f"its certificate can't be trusted ({plain(reason.verify_message)})"
                raise Unreachable(f"{why}; name a file that vouches for it as --cafile") from None
            raise Unreachable(plain(reason) or type(error).__name__) from None


def _received(reply: Any, most_bytes: int, within_s: float) -> Iterator[bytes]:
    """Yield a reply's body as it comes; raise Unreachable if it is cut short, too long or too slow."""
    length = reply.headers.get("Content-Length") or ""
    expected = int(length) if length.isdigit() and len(length) < 16 else None
    until, received = time.monotonic() + within_s, 0
    while expected is None or received < expected:
        try:
            chunk = reply.read1(1 << 16)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"the connection broke in mid-answer: {plain(error)}") from None
        if not chunk:
            break
        received += len(chunk)
        if received > most_bytes:
            raise Unreachable(f"an answer of more than {most_bytes} bytes")
        if time.monotonic() > until:
            raise Unreachable(f"an answer that was not complete after {within_s:.0f} s")
        yield chunk
    if expected is not None and received < expected:
        raise Unreachable(f"the connection broke after {received} of {expected} bytes")


def _refusal(error: Any, call_s: float) -> Exception:
    """Tell the hub's own refusal (JSON with a `detail`) from what a proxy answers for a hub that is down."""
    if error.code == 401:
        return TokenRefused()
    if error.code in (400, 404, 409, 413, 422):
        try:
            answer = json.loads(b"".join(_received(error, _LONGEST_ANSWER, call_s)))
        except (Unreachable, ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and "detail" in answer:
            return HubRefuses(error.code, plain(answer["detail"]))
    hint = "; give the address it points to as --hub" if 300 <= error.code < 400 else ""
    hint = f"; {WRONG_ADDRESS}" if error.code == 404 else hint
    is_hub_error = error.code >= 500 and error.code not in _AWAY
    return Unreachable(f"it answered with status {error.code}{hint}", is_hub_error)
