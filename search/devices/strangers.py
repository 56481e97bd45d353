"""What a stranger may hold open at the hub, and send: connections, the time of each part of a request, long bodies.

- uvicorn waits for ever for the rest of a request, and takes connections until the system refuses it files. Here
  whoever has sent no whole request is hung up on in time, and at once where connections are needed for others; whatever
  is being answered stays.
- Bodies are counted as they arrive, whatever headers claim, and a long one is read from known devices alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import h11
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from workers.listening import PENDING_MOST, connections_most

HEADERS, BODY, ANSWER, IDLE = "headers", "body", "answer", "idle"
PATIENCE_S = {HEADERS: 10.0, BODY: 60.0, ANSWER: 300.0}  # uvicorn's timeout_keep_alive ends what is idle
TLS_HANDSHAKE_S = 10.0
ACCEPTED_AT_ONCE = 8
DRAINED_TIMES = 8  # this many times the limit is read and thrown away, so that the sender sees the response
RETRY_AFTER_S = 2


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with limits to connections and to the time of each part of a request."""

    _part = ""
    _since = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin a connection; at the limit, the one that has sent nothing whole for longest makes way."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > connections_most():
            unfinished = [one for one in self.connections if isinstance(one, LimitedProtocol) and one._makes_way()]
            min(unfinished, key=lambda one: one._since, default=self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        super().connection_lost(exc)
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on after a response."""
        super().on_response_complete()
        self._watch()

    def _makes_way(self) -> bool:
        return self._part != ANSWER and not self.transport.is_closing()  # one that is closing has made way already

    def _watch(self) -> None:
        """Start the time of the part of a request that has begun; more bytes of the same part win no time."""
        part = self._part_now()
        if part == self._part:
            return
        self._part, self._since = part, time.monotonic()
        self._stop_timer()
        if part in PATIENCE_S and not self.transport.is_closing():
            self._timer = self.loop.call_later(PATIENCE_S[part], self.transport.abort)

    def _part_now(self) -> str:
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            return BODY
        if state is h11.IDLE:
            return HEADERS if self.cycle is None or self.conn.trailing_data[0] else IDLE
        return ANSWER

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class HubLoop(asyncio.SelectorEventLoop):
    """An event loop for connections that no protocol knows of yet.

    It waits less long for a TLS handshake, and accepts few connections before it lets protocols begin: else all that
    wait would be accepted at once, until the system refuses more files.
    """

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        """See `asyncio.loop.create_server`."""
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = TLS_HANDSHAKE_S
        server = await super().create_server(*arguments, **{**options, "backlog": ACCEPTED_AT_ONCE})
        options["sock"].listen(PENDING_MOST)
        return server


class BodyLimit:
    """ASGI middleware: 413 for a body of more than `most_bytes`; a smaller one is passed on in one piece.

    Who sends more than `strangers_bytes` must be known by then: `knows` is given the Authorization header, and its None
    is a 503.
    """

    def __init__(
        self, app: ASGIApp, most_bytes: int, strangers_bytes: int, knows: Callable[[str], bool | None]
    ) -> None:
        self._app, self._most_bytes = app, most_bytes
        self._strangers_bytes, self._knows = strangers_bytes, knows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(receive, Headers(scope=scope).get("authorization", ""))
        except ClientDisconnect:
            return  # no one waits for a response any more
        if isinstance(body, JSONResponse):
            await body(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive, authorization: str) -> bytes | JSONResponse:
        """Return the body, or the refusal of one that is too long."""
        parts: list[bytes] = []
        size, more, is_known = 0, True, False
        while more and size <= self._most_bytes * DRAINED_TIMES:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            part = message.get("body", b"")
            size, more = size + len(part), message.get("more_body", False)
            if size > self._strangers_bytes and not is_known:
                answer = await run_in_threadpool(self._knows, authorization)
                if answer is None:
                    return _refusal(
                        503, "the database is locked or away; try again", {"Retry-After": f"{RETRY_AFTER_S}"}
                    )
                if not answer:
                    return _refusal(413, f"a body of more than {self._strangers_bytes} bytes without a device's token")
                is_known = True
            if size <= self._most_bytes:
                parts.append(part)
        if size > self._most_bytes:
            return _refusal(413, f"a body of more than {self._most_bytes} bytes; send less")
        return b"".join(parts)


def _refusal(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, {"Connection": "close", **(headers or {})})
