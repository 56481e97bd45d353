"""What every test needs: one thread, and Hypothesis examples that are the same in every run."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: it reads this once
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests import onnxruntime themselves
os.environ.pop("CONDENSERY_STORAGE", None)  # of the person who runs the tests
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # run in a shell's background; every process here would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from hypothesis import settings

from tests.command_line import LIBRARIES, measure_briefly
from tests.dashboards.browser import browser  # noqa: F401  a fixture of every folder
from tests.postgres import postgres, postgres_url  # noqa: F401  fixtures of every folder
from workers.latency.policy import MeasurementPolicy
from workers.runners import worker_server

torch.set_num_threads(1)
worker_server.PRELOADED[:] = LIBRARIES  # one server for the tests' commands and for the workers of their searches
SHIPPED_QUICK = measure_briefly()

settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci")

NO_SKIP = "CONDENSERY_NO_SKIP"  # set by .ci/run: a tool that a test needs must be there
# What a machine can't have by installing something; everything else may be skipped only where tools are missing.
HARDWARE = ("GPU", "CUDA", "MPS")


@pytest.fixture
def quick_as_shipped() -> MeasurementPolicy:
    """The quick policy as it is outside of tests."""
    return SHIPPED_QUICK


@pytest.hookimpl(trylast=True)  # what isn't to be run is left out by then
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take long where files run side by side, to end together."""
    if hasattr(config, "workerinput"):  # only a worker of pytest-xdist has it
        seconds: Counter[Path] = Counter()
        for item in items:
            seconds[item.path] += seconds_of(item)
        items.sort(key=lambda item: -seconds[item.path])


def seconds_of(item: pytest.Item) -> int:
    """Return about how long a test takes: what its marker says, or else what such a test usually takes."""
    slow = item.get_closest_marker("slow")
    usually = 8 if item.get_closest_marker("browser") else 3 if slow else 0
    return int(slow.kwargs.get("seconds", usually)) if slow else usually


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Turn a skip into a failure where nothing may be skipped."""
    report = yield
    if report.skipped and os.environ.get(NO_SKIP) and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(word in reason for word in HARDWARE):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, but {NO_SKIP} is set: {reason}"
    return report
