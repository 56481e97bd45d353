"""The bridge between the controller and the trials of a Tune run: jobs and commands go down, news and ends come up.

Several threads of the driver share it: one reads the controller's pipe, one keeps the mailbox that workers ask for
commands, and Tune's own loop runs in the main thread.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from search.engines.ray.plan import Plan
from workers.processes import children_of, lives
from workers.runners.messages import ENDS, Message, MessageKind

POST_EVERY_S = 0.5  # between two looks for commands to post
POST_AGAIN_S = 5.0  # after which the same commands are posted again
DEAD_AFTER_S = 45.0  # without an answer from the mailbox, which is on this machine
PENDING_TICK_S = 2.0  # between two signs of life of trials that have no worker yet


class JobBridge:
    """What the driver's threads share: jobs that wait, commands for trials, the way back to the controller."""

    def __init__(self, pipe: Connection, plan: Plan, servers: dict[int, str]) -> None:
        self.plan = plan
        self._servers = servers
        self.jobs: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self.commands: dict[int, str] = {}  # stop or cancel, by the jobs' serial numbers
        self.open: dict[str, tuple[int, int, int]] = {}  # Tune's trial: serial, number, attempt; until its end is sent
        self._pipe = pipe
        self._sending = threading.Lock()
        self._ticked_at = -1e9

    def send(self, kind: str, *payload: Any) -> None:
        """Send a message to the controller; several threads may."""
        with self._sending:
            self._pipe.send((kind, *payload))

    def end(self, trial_id: str, kind: MessageKind, payload: Any) -> None:
        """Tell the controller how a trial ended, unless it knows already."""
        if trial_id in self.open:
            serial, number, attempt = self.open.pop(trial_id)
            self.commands.pop(serial, None)
            self.send("events", [(kind, number, attempt, payload)])

    def tick_pending(self, trial_ids: Sequence[str]) -> None:
        """Give a sign of life for trials that wait for a worker: Tune lists them, and its loop runs."""
        if time.monotonic() - self._ticked_at >= PENDING_TICK_S:
            self._ticked_at = time.monotonic()
            for trial_id in trial_ids:
                if trial_id in self.open:
                    self.send("tick", *self.open[trial_id][1:])

    def pass_on(self, trial_id: str, news: list[Message]) -> None:
        """Pass a worker's messages on to the controller; even an empty list is a sign of life."""
        _, number, attempt = self.open[trial_id]
        self.send("tick", number, attempt)
        if not news:
            return
        *before, (kind, _, _, payload) = news
        if kind not in ENDS:
            self.send("events", news)
        else:
            if before:
                self.send("events", before)
            self.end(trial_id, kind, payload)

    def listen(self) -> None:
        """Read the controller's messages until it is gone, which the supervisor notices."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = self._pipe.recv()
                if message[0] == "job":
                    self.jobs.put(message[1:])
                else:
                    self.commands[message[1]] = message[2]

    def open_mailbox(self) -> Any:
        """Start the actor that workers ask for commands, on this machine where the driver has a node of its own."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from workers.runners.mailbox import MAILBOX, Mailbox

        here = ray.get_runtime_context().get_node_id()
        mailbox = (
            ray.remote(Mailbox)
            .options(
                name=MAILBOX,
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
            )
            .remote()
        )
        ray.get(mailbox.post.remote({}), timeout=120)
        return mailbox

    def keep_mailbox(self, mailbox: Any) -> None:
        """Post all commands again and again, so that a restarted mailbox loses none; end when Ray is dead."""
        import ray

        answered_at, posted_at = time.monotonic(), 0.0
        posted: dict[int, str] = {}
        while time.monotonic() - answered_at < DEAD_AFTER_S:
            time.sleep(POST_EVERY_S)
            self.end_without_servers()
            if self.commands == posted and time.monotonic() - posted_at < POST_AGAIN_S:
                answered_at = time.monotonic()
                continue
            try:
                posted = dict(self.commands)
                ray.get(mailbox.post.remote(posted), timeout=15.0)
                answered_at = posted_at = time.monotonic()
            except Exception:
                traceback.print_exc()
                posted = {}
        self._exit("it doesn't answer any more")

    def end_without_servers(self) -> None:
        """End this process when one of the servers that it started is dead: no job would ever end."""
        for pid, name in self._servers.items():
            if not lives(pid):
                self._exit(f"its {name} died")

    def _exit(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self.send("ended", reason)
        os._exit(1)


def own_servers() -> dict[int, str]:
    """Return Ray's servers among this process's children (Linux), which it can't go on without."""
    servers = {}
    for pid in children_of(os.getpid()):
        with contextlib.suppress(OSError):
            name = Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()).name
            if name in ("raylet", "gcs_server"):
                servers[pid] = name
    return servers
