"""What tests of an agent share: a small hub, agents that are gone in the end, networks to measure."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest

from tests.workers.agents import Agent, agents_started, signals_kept
from tests.workers.latency.test_latency_contract import write_network
from tests.workers.small_hub import SmallHub


@pytest.fixture(scope="package", autouse=True)
def quick_collections() -> Iterator[None]:
    """Leave what is imported out of the garbage collections that each measurement begins with."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def our_own_signals(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with signals_kept():
        yield


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    hub = SmallHub().start()
    yield hub
    hub.stop()


@pytest.fixture
def start_agent(hub, tmp_path) -> Iterator[Callable[..., Agent]]:
    with agents_started(hub, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> bytes:
    return write_network(tmp_path_factory.mktemp("models") / "a.onnx", 4).read_bytes()


@pytest.fixture(scope="module")
def other_network(tmp_path_factory) -> bytes:
    return write_network(tmp_path_factory.mktemp("models") / "b.onnx", 5).read_bytes()
