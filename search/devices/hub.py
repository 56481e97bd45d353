"""The hub: the HTTP interface that device agents talk to, over the tables of jobs and devices.

Every call but /v1/health, /agent.py and /openapi.json needs a device's token, and shows that device's things alone:
what belongs to another looks like what isn't there. Nothing is kept in memory: the hub may die at any instruction, and
several may serve one database.
"""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from search.devices import PORT, schemas
from search.devices.agents import UnlikeDevice
from search.devices.api import BODY_BYTES_MOST, HubState, router
from search.devices.body_limit import BodyLimit
from search.devices.leases import JobUnknown, LeaseLost, LeaseTerms, NotEnrolled
from search.devices.transitions import LEASE_S
from search.store.clock import Clock
from search.store.database import open_for_writing
from space.errors import DatabaseLocked, DatabaseUnavailable, DiskFull, InvalidSettings

RETRY_S = 2.0
RETRY_AFTER_S = 2  # a database that is locked or away
_AWAY = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.TimeoutError,  # every connection is taken
    DatabaseLocked,
    DatabaseUnavailable,
    DiskFull,
)

log = logging.getLogger("condensery.hub")

_SAID: dict[type[Exception], tuple[int, str]] = {
    NotEnrolled: (409, "this agent doesn't serve the device now; enrol again"),
    LeaseLost: (409, "the lease of this attempt has ended; drop the job"),
    JobUnknown: (404, "this device was never given this attempt of this job"),
}


def create_app(
    engine: sa.Engine, *, lease_s: float = LEASE_S, retry_s: float = RETRY_S, now: Clock | None = None
) -> FastAPI:
    """Return the hub over a database opened for writing.

    Args:
        engine: see `search.store.database.open_for_writing`.
        lease_s: a job not heard of for so long goes to the next device.
        retry_s: how long an agent with nothing to do waits before it asks again.
        now: the time; None = the database's.
    """
    app = FastAPI(
        title="Condensery device hub",
        version=str(schemas.PROTOCOL),
        description="What measuring agents ask and answer. Tokens come from `condensery devices add`.",
        docs_url=None,  # those pages would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.hub = HubState(engine, LeaseTerms(lease_s, now), retry_s)
    app.include_router(router)
    app.add_middleware(BodyLimit, most_bytes=BODY_BYTES_MOST)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    for away in _AWAY:
        app.add_exception_handler(away, _database_away)
    app.add_exception_handler(sa.exc.SQLAlchemyError, _database_refuses)
    for kind, (status, detail) in _SAID.items():
        app.add_exception_handler(kind, _said(status, detail))
    app.add_exception_handler(UnlikeDevice, _unlike)
    return app


def _said(status: int, detail: str) -> Any:
    def answer(request: Request, error: Exception) -> Response:
        return _problem(status, detail)

    return answer


def _write_down(request: Request, why: str) -> None:
    sender = request.client.host if request.client is not None else "somewhere"
    log.warning("%s", schemas.one_line(f"{request.method} {request.url.path[:100]} from {sender}: {why}")[:400])


def _unlike(request: Request, error: Exception) -> Response:
    _write_down(request, str(error))
    return _problem(409, str(error))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Where and which rule, never what was sent: that may be huge, or nothing that JSON can hold.
    found = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5]]
    return _problem(422, "; ".join(text[:200] for text in found))


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # only a body that can't be parsed gives it
        return _problem(422, "the body is no JSON object that can be read")
    if error.status_code in (401, 409):  # a wrong token, a second agent: what whoever runs the hub must know of
        _write_down(request, str(error.detail))
    return _problem(error.status_code, str(error.detail), dict(error.headers or {}))


def _database_away(request: Request, error: Exception) -> Response:
    log.warning("%s %s: %s", request.method, request.url.path, schemas.one_line(str(error))[:300])
    why = "the database is locked or away; try again"
    return _problem(503, why, {"Retry-After": str(RETRY_AFTER_S)})


def _database_refuses(request: Request, error: Exception) -> Response:
    """Say that a call can't be served as it is: coming back with the same doesn't help, and agents count these."""
    log.error("%s %s: %s", request.method, request.url.path, schemas.one_line(str(error))[:300])
    return _problem(500, "the database refuses what this call would write")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    plain = schemas.one_line(detail).encode("utf-8", "replace").decode()
    return JSONResponse({"detail": plain}, status, headers)


# -- serving --


def serve(
    url: str,
    host: str = "127.0.0.1",
    port: int = PORT,
    tls: tuple[Path, Path] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve a database's devices until SIGTERM or Ctrl-C, then end what is under way and return.

    Args:
        url: of the database; made when it isn't there.
        host: the address to listen on; other machines reach one that isn't loopback.
        port: 0 = any free one.
        tls: the certificate's and the key's PEM file.
        note: told the address, and of an unprotected one.

    Raises:
        InvalidSettings: an address that can't be listened on, or a certificate that can't be used. Those of
            `open_for_writing`.
    """
    engine = open_for_writing(url)
    try:
        config = uvicorn.Config(
            create_app(engine),
            access_log=False,
            log_config=None,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=5,
            ssl_certfile=str(tls[0]) if tls else None,
            ssl_keyfile=str(tls[1]) if tls else None,
        )
        try:
            config.load()
        except OSError as error:  # ssl's own errors included
            assert tls is not None
            raise InvalidSettings(f"{tls[0]} and {tls[1]} must be a certificate and its key in PEM: {error}") from None
        server = uvicorn.Server(config)
        with _listening(host, port) as listener, _quiet_end(server):
            shown = f"[{host}]" if ":" in host else host
            note(f"hub at http{'s' if tls else ''}://{shown}:{listener.getsockname()[1]}")
            if tls is None and not _is_loopback(host):
                note(f"warning: {host} is open to other machines without TLS: tokens can be read on the way")
            server.run(sockets=[listener])
    finally:
        engine.dispose()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    if not 0 <= port < 65_536:
        raise InvalidSettings(f"a port must be in 0..65535, but got {port}; choose another.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise InvalidSettings(f"{host} port {port} can't be listened on ({error}); choose another.") from None
    with listener:
        yield listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _quiet_end(server: uvicorn.Server) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C be the orderly end they are: uvicorn raises them once more when it has shut down."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
