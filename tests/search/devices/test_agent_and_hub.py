"""The agent's process and the hub's process over loopback, killed at every moment: each job ends exactly once."""

from __future__ import annotations

import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from search.devices import registry
from tests import waiting
from tests.search.hub_process import Pair
from tests.workers.latency.test_latency_contract import sha256, write_network

pytestmark = pytest.mark.slow
until = partial(waiting.until, every_s=0.005)  # the moments to kill at are short


def networks(folder: Path, count: int) -> list[Path]:
    return [write_network(folder / f"{channels}.onnx", channels) for channels in range(4, 4 + count)]


def check_each_ended_once(pair: Pair, ids: list[int], models: list[Path]) -> None:
    """Every job is done, by one accepted result that is its model's; nothing was refused as implausible."""
    rows = pair.rows(ids)
    assert [row.state for row in rows] == ["done"] * len(ids), [row.reason for row in rows]
    assert [row.report["sha256"] for row in rows if row.report] == [sha256(model) for model in models]
    assert pair.accepted() == dict.fromkeys(ids, 1)
    assert pair.verdicts() <= {"accepted", "late"}


def test_a_revoked_device_stops_and_its_job_waits_for_another(pair, tmp_path):
    ids = pair.request(*networks(tmp_path, 1))
    pair.start_hub()
    registry.revoke_device(pair.engine, "tiny")
    pair.start_agent()
    assert pair.wait("agent") == 3
    assert [row.state for row in pair.rows(ids)] == ["waiting"]


def at_its_lease(pair: Pair) -> None:
    until(lambda: pair.has_seen("leased"))


def at_an_unanswered_download(pair: Pair) -> None:
    until(lambda: pair.has_seen("leased"))
    pair.signal("hub", signal.SIGSTOP)


def while_measuring(pair: Pair) -> None:
    until(lambda: pair.has_seen("measuring"))


def at_an_unanswered_post(pair: Pair) -> None:
    while_measuring(pair)
    pair.signal("hub", signal.SIGSTOP)
    until(lambda: list((pair.folder / "agent" / "unsent").glob("*/*.json")))


def once_a_result_is_in(pair: Pair) -> None:
    until(pair.accepted)


MOMENTS = [at_its_lease, at_an_unanswered_download, while_measuring, at_an_unanswered_post, once_a_result_is_in]
# Each moment with the one that has more to lose then; what it had is on its disk or in the database.
TELLING = ["agent", "hub", "agent", "agent", "hub"]
KILLS = [
    pytest.param(victim, moment, id=f"{moment.__name__}-{victim}", marks=() if victim == telling else pytest.mark.long)
    for moment, telling in zip(MOMENTS, TELLING, strict=True)
    for victim in ("agent", "hub")
]


@pytest.mark.slow(seconds=6)
@pytest.mark.parametrize(("victim", "moment"), KILLS)
def test_a_kill_at_any_moment_loses_no_job_and_ends_none_twice(pair, tmp_path, victim, moment):
    models = networks(tmp_path, 2)
    ids = pair.request(*models)
    pair.start_hub()
    pair.start_agent()
    moment(pair)
    pair.kill(victim)
    lives = pair.log("agent").count("enrolled as tiny")
    if victim == "agent":
        pair.signal("hub", signal.SIGCONT)
        lives += 1
    pair.start(victim)
    until(lambda: pair.are_over(ids))
    check_each_ended_once(pair, ids, models)
    until(lambda: pair.log("agent").count("enrolled as tiny") >= lives)  # before, a signal just ends it
    pair.signal("agent", signal.SIGTERM)
    assert pair.wait("agent") == 0, pair.log("agent")
    assert not list((tmp_path / "agent" / "unsent").glob("*/*"))


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_kills_at_random_moments_lose_no_job_and_end_none_twice(pair, tmp_path, seed):
    rng = random.Random(seed)
    models = networks(tmp_path, 4)
    ids = pair.request(*models)
    pair.start_hub()
    pair.start_agent()
    for victim in rng.sample(["agent", "hub"] * 2, 4):  # fewer than the troubles that end a job
        time.sleep(rng.uniform(0.1, 0.8))
        pair.kill(victim)
        pair.start(victim)
    until(lambda: pair.are_over(ids))
    check_each_ended_once(pair, ids, models)


def test_a_lease_held_by_an_agent_that_went_silent_goes_to_the_next(pair, tmp_path):
    models = networks(tmp_path, 2)
    ids = pair.request(*models)
    pair.start_hub()
    pair.start_agent()
    at_its_lease(pair)
    pair.signal("agent", signal.SIGSTOP)
    token = registry.add_device(pair.engine, "second", queue="tiny")
    pair.start_agent(name="second", token=token)
    until(lambda: pair.are_over(ids))
    pair.signal("agent", signal.SIGCONT)  # it finds its leases gone, or sends what is late
    for name in ("agent", "second"):
        pair.signal(name, signal.SIGTERM)
        assert pair.wait(name) == 0, pair.log(name)
    check_each_ended_once(pair, ids, models)
