"""Limits to the size of requests, whatever their headers claim: chunked bodies are counted as they arrive."""

from __future__ import annotations

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAINED_TIMES = 8  # this many times the limit is read and thrown away, so that the sender sees the response
RETRY_AFTER_S = 2


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
