"""Measuring the jobs of one lease together: time their models, or count their instructions under an emulator."""

# ruff: noqa: B905 - zip() has no `strict` before Python 3.10

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.latency.agent.batch import Placement, measure_batch
from workers.latency.agent.cooling import Client
from workers.latency.agent.serving.delivery import Delivery
from workers.latency.agent.serving.errors import DeviceFault, LeaseLost
from workers.latency.agent.serving.fetching import Fetching
from workers.latency.agent.serving.protocol import Job, Model, Task
from workers.latency.agent.serving.session import Session
from workers.latency.agent.subprocesses import ProcessEnd, Stopped, run_process


class Measuring:
    """Measures jobs that have the same task; what comes out for each is stored, to be sent."""

    def __init__(self, session: Session, delivery: Delivery) -> None:
        self._session = session
        self._delivery = delivery
        self._fetching = Fetching(session)

    def measure(self, jobs: list[Job]) -> None:
        """Fetch the models, time them or count their instructions, and store each job's result or failure.

        Raises:
            Ended, TokenRefused, LeaseLost: the batch must end.
        """
        numbers = ", ".join(str(job.ticket.job) for job in jobs)
        self._session.journal.say(f"took {'jobs' if len(jobs) > 1 else 'job'} {numbers}")
        jobs, paths = self._fetch_models(jobs)
        self._delivery.send_all()
        if not jobs:
            return
        self._session.leases.tell("measuring")
        try:
            report = self._report(jobs, paths)
        except Stopped:
            self._session.check_stopped()
            raise LeaseLost from None
        except Exception as error:  # whatever it is, the agent goes on, and another device may do better
            for job in jobs:
                self._delivery.fail(job.ticket, "device", f"{type(error).__name__}: {error}")
            return
        facts = {key: value for key, value in report.items() if key != "models"}
        for job, entry in zip(jobs, report["models"]):
            if job.ticket in self._session.leases.held():
                self._finish(job, facts, entry)

    def _fetch_models(self, jobs: list[Job]) -> tuple[list[Job], dict[Model, Path]]:
        """Return the jobs whose models are on the device now, and where; the others are answered with a fault."""
        self._session.leases.tell("downloading")
        ready: list[Job] = []
        paths: dict[Model, Path] = {}
        for job in jobs:
            try:
                for model in (job.task.anchor, job.model):
                    if model is not None and model not in paths:
                        paths[model] = self._fetching.fetch(model, list(paths.values()))
                ready.append(job)
            except DeviceFault as fault:
                self._delivery.fail(job.ticket, "device", str(fault))
        return ready, paths

    def _report(self, jobs: list[Job], paths: dict[Model, Path]) -> dict[str, Any]:
        settings, task = self._session.settings, jobs[0].task
        models = [paths[job.model] for job in jobs]
        if task.anchor is None:
            return self._count(models, task)
        client = Client(self._session.is_stopped, self._session.leases.tell)
        return measure_batch(
            models, paths[task.anchor], task.policy, Placement(settings.command, settings.core), client
        )

    def _finish(self, job: Job, facts: dict[str, Any], entry: dict[str, Any]) -> None:
        """Store one model's result, or its failure."""
        if "error" in entry:
            self._delivery.fail(job.ticket, entry.get("fault", "model"), entry["error"])
            return
        if entry["sha256"] != job.model.sha256:
            self._delivery.fail(job.ticket, "device", "the model's file changed while it was measured")
            return
        names = {"attempt": "tries"}  # for the hub, an attempt is a lease of the job
        measured = {names.get(key, key): value for key, value in entry.items() if key != "path"}
        self._delivery.succeed(job.ticket, {**facts, **measured})

    def _count(self, models: Sequence[Path], task: Task) -> dict[str, Any]:
        """Count each model's instructions in an emulated process, and in a next one after a model that crashed it."""
        failed: dict[int, dict[str, Any]] = {}
        while True:
            places = [place for place in range(len(models)) if place not in failed]
            if not places:
                return {"models": [failed[place] for place in range(len(models))]}
            end = self._count_in_one_process([models[place] for place in places], task)
            if end.report is not None:
                counted = dict(zip(places, end.report["models"]))
                return {**end.report, "models": [{**failed, **counted}[place] for place in range(len(models))]}
            culprits, fault = places, "device"
            if end.position is not None and end.position < len(places):
                culprits, fault = [places[end.position]], "model"
            for place in culprits:
                failed[place] = {"path": str(models[place]), "error": end.reason, "fault": fault}

    def _count_in_one_process(self, models: Sequence[Path], task: Task) -> ProcessEnd:
        settings = self._session.settings
        counts = settings.folder / "counts.jsonl"  # no one else's: the folder is locked
        with contextlib.suppress(OSError):
            counts.unlink()
        launcher = [word.replace("{counts}", str(counts)) for word in settings.launcher or ()]
        options = ["--counts", str(counts), "--runtime", task.runtime, "--watch-stdin", "--"]
        command = [*launcher, str(settings.program), "count", *options, *map(str, models)]
        try:
            return run_process(command, task.policy["timeout_s"], self._session.is_stopped)
        finally:
            with contextlib.suppress(OSError):
                counts.unlink()
