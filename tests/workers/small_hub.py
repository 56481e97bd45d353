"""A hub in the test's own process: it keeps the protocol's state in memory, and causes trouble when a test asks for it.

A double for the agent's tests alone: the real hub has its own tests, and one of both together.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a-token-of-the-tests"
PATIENCE_S = 60.0  # until a test gives up waiting; none waits that long when all is well


@dataclass
class Job:
    offer: dict[str, Any]  # what the agent is sent
    state: str = "waiting"  # or leased, done, failed
    attempt: int = 0
    results: list[dict[str, Any]] = field(default_factory=list)  # every one that was taken
    verdicts: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)  # (fault, reason)
    states: list[str] = field(default_factory=list)  # of the heartbeats


class SmallHub:
    """Serves one device on a port of its own; `stop` and `start` again is a restart that forgets nothing."""

    def __init__(self, lease_s: float = 60.0) -> None:
        self.jobs: dict[int, Job] = {}
        self.models: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []  # method and path
        self.bodies: list[dict[str, Any]] = []  # of the posts, in the order they came
        self.instance: str | None = None
        self.token = TOKEN
        self.lease_s = lease_s
        self.changed = threading.Condition(threading.RLock())
        self._trouble: list[tuple[str, str]] = []
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._context: Any = None

    # -- what a test does

    def start(self, context: Any = None) -> SmallHub:
        hub = self

        class Handler(_Handler):
            small_hub = hub

        self._context = context or self._context
        self._server = _Server(("127.0.0.1", self._port), Handler)
        if self._context is not None:
            self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    @property
    def url(self) -> str:
        return f"http{'' if self._context is None else 's'}://127.0.0.1:{self._port}"

    def keep(self, content: bytes) -> dict[str, Any]:
        sha256 = hashlib.sha256(content).hexdigest()
        self.models[sha256] = content
        return {"sha256": sha256, "size": len(content)}

    def ask(self, offer: dict[str, Any]) -> Job:
        """Add a job; its id is its place, from 1."""
        with self.changed:
            job = Job(offer)
            self.jobs[len(self.jobs) + 1] = job
            return job

    def trouble(self, path: str, *kinds: str) -> None:
        """Answer the next calls to paths that match the expression with these kinds of trouble, in this order."""
        self._trouble += [(path, kind) for kind in kinds]

    def wait_for(self, holds: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, PATIENCE_S), f"not so in {PATIENCE_S:.0f} s: {self.calls[-9:]}"

    def count(self, path: str) -> int:
        with self.changed:
            return sum(re.fullmatch(path, called) is not None for _, called in self.calls)

    # -- what it answers

    def next_trouble(self, path: str) -> str | None:
        with self.changed:
            for place, (pattern, kind) in enumerate(self._trouble):
                if re.fullmatch(pattern, path):
                    del self._trouble[place]
                    return kind
        return None

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Return status and JSON (or bytes) of one call, and change the state as a hub does."""
        with self.changed:
            self.calls.append((method, path))
            try:
                if method == "GET":
                    model = self.models.get(path.rpartition("/")[2])
                    return (404, {"detail": "no such model"}) if model is None else (200, model)
                self.bodies.append(body)
                if path == "/v1/enrol":
                    return self._enrol(body)
                if body["instance"] != self.instance:
                    return 409, {"detail": "another instance is enrolled"}
                if path == "/v1/leases":
                    return 200, {"jobs": self._lease(body["limit"])}
                if path == "/v1/leave":
                    self._return_leases()
                    return 200, {}
                return self._about_a_job(path, body)
            finally:
                self.changed.notify_all()

    def _enrol(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.instance = body["instance"]
        self._return_leases()
        return 200, {"device": "tiny", "queue": "tiny", "retry_s": 0.05, "lease_s": self.lease_s}

    def _return_leases(self) -> None:
        for job in self.jobs.values():
            if job.state == "leased":
                job.state = "waiting"

    def _lease(self, limit: int) -> list[dict[str, Any]]:
        waiting = [(number, job) for number, job in self.jobs.items() if job.state == "waiting"][:limit]
        for _, job in waiting:
            job.state, job.attempt = "leased", job.attempt + 1
        return [{"id": number, "attempt": job.attempt, **job.offer} for number, job in waiting]

    def _about_a_job(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        number, kind = path.split("/")[-2:]
        job = self.jobs[int(number)]
        holds = job.state == "leased" and job.attempt == body["attempt"]
        if kind == "heartbeat":
            job.states.append(body["state"])
            return (200, {"lease_s": self.lease_s}) if holds else (409, {"detail": "the lease is lost"})
        if kind == "failure":
            job.failures.append((body["fault"], body["reason"]))
            if holds:
                job.state = "failed"
            return 200, {"recorded": True}
        if job.state == "done":
            job.verdicts.append("repeated")
        elif holds or job.state == "waiting":
            job.state = "done"
            job.results.append(body["report"])
            job.verdicts.append("accepted")
        else:
            job.verdicts.append("late")
        return 200, {"verdict": job.verdicts[-1]}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # an agent that was killed in mid-call


class _Handler(BaseHTTPRequestHandler):
    small_hub: SmallHub

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self, body: Any) -> None:
        hub = self.small_hub
        trouble = hub.next_trouble(self.path)
        if trouble is not None and trouble.isdigit():
            self._send(int(trouble), {"detail": f"trouble\x1b[31m {trouble}"})
        elif trouble == "a page":
            self._send(404, b"<html>the hub is away</html>")
        elif trouble is not None and trouble.startswith("http"):
            self.send_response(307)
            self.send_header("Location", trouble + self.path)
            self.end_headers()
        elif self.headers["Authorization"] != f"Bearer {hub.token}":
            self._send(401, {"detail": "unknown token"})
        else:
            status, answer = hub.answer(self.command, self.path, body)
            if trouble == "other bytes":
                answer = bytes(byte ^ 1 for byte in answer)
            elif trouble == "no JSON":
                answer = b"[nothing of the kind"
            elif trouble == "a list":
                answer = []
            self._send(status, answer, trouble)

    def _send(self, status: int, answer: Any, trouble: str | None = None) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if trouble == "no answer":  # the call took effect, but the agent gets no answer
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if trouble in ("cut", "stall") else content)
        self.wfile.flush()
        if trouble == "stall":
            self.rfile.read(1)  # until the other side gives up
