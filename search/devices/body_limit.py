"""A limit to the size of requests, whatever their headers claim: chunked bodies are counted as they arrive."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAINED_TIMES = 8  # this many times the limit is read and thrown away, so that the sender sees the response


class BodyLimit:
    """ASGI middleware: 413 for a body of more than `most_bytes`; a smaller one is passed on in one piece."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(receive)
        except ClientDisconnect:
            return  # no one waits for a response any more
        if body is None:
            detail = f"a body of more than {self._most_bytes} bytes; send less"
            await JSONResponse({"detail": detail}, 413, {"Connection": "close"})(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body, or None when it is too long."""
        parts: list[bytes] = []
        size, more = 0, True
        while more and size <= self._most_bytes * DRAINED_TIMES:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            part = message.get("body", b"")
            size, more = size + len(part), message.get("more_body", False)
            if size <= self._most_bytes:
                parts.append(part)
        return b"".join(parts) if size <= self._most_bytes else None
