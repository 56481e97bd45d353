"""Who may measure: adding, revoking and listing devices, their tokens, and one agent at a time for each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.devices import registry
from search.devices.registry import add_device, device_by_token, list_devices, revoke_device
from search.store.device_tables import device
from space.errors import DeviceExists, DeviceNotFound, InvalidSettings
from tests.search.tiny_devices import CONDITIONS, FACTS, LEASE_S, Desk, instance_of, wall_report
from tests.search.tiny_studies import sqlite_url


@pytest.fixture
def desk(tmp_path: Path, empty_database: Path):
    shutil.copy(empty_database, tmp_path)
    desk = Desk.at(tmp_path)
    yield desk
    desk.engine.dispose()


def listed(desk: Desk) -> dict[str, registry.DeviceRow]:
    return {row.name: row for row in list_devices(desk.engine, LEASE_S, desk.clock)}


def test_a_token_finds_its_device_and_no_other(desk: Desk):
    tokens = {name: add_device(desk.engine, name) for name in ("pi", "phone")}
    for name, token in tokens.items():
        found = device_by_token(desk.engine, token)
        assert found is not None
        assert (found.name, found.queue, found.virtual) == (name, name, False)
    assert len(set(tokens.values())) == 2


@pytest.mark.parametrize("token", ["", "x", "ä", "\ud800", "0" * 100_000, "\x00"])
def test_nonsense_is_no_token(desk: Desk, token: str):
    add_device(desk.engine, "pi")
    assert device_by_token(desk.engine, token) is None


def test_the_database_does_not_hold_the_token(desk: Desk, tmp_path: Path):
    token = add_device(desk.engine, "pi")
    desk.engine.dispose()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert token.encode() not in stored
    assert b"condensery_device" in stored  # or the file read is not the database


def test_a_stored_hash_is_no_token(desk: Desk):
    add_device(desk.engine, "pi")
    with desk.engine.connect() as connection:
        stored = connection.scalar(sa.select(device.c.token_hash))
    assert stored is not None
    assert device_by_token(desk.engine, stored) is None


def test_a_revoked_token_is_worth_nothing_and_its_jobs_go_to_the_next(desk: Desk):
    first, second = desk.agent("one"), desk.agent("two")
    (key,) = desk.submit("net")
    first.lease()
    revoke_device(desk.engine, "one", desk.clock)
    assert device_by_token(desk.engine, first.token) is None
    assert [job.id for job in second.lease()] == [key]
    revoke_device(desk.engine, "one", desk.clock)  # again: nothing
    assert desk.job(key).device == "two"
    assert listed(desk)["one"].state == "revoked"
    assert listed(desk)["one"].revoked
    assert (listed(desk)["one"].conditions, listed(desk)["two"].conditions) == ({}, CONDITIONS)


def test_revoking_an_unknown_device_names_those_there_are(desk: Desk):
    with pytest.raises(DeviceNotFound, match=r"no device is called 'pi' \(there is none yet\)"):
        revoke_device(desk.engine, "pi")
    add_device(desk.engine, "phone")
    with pytest.raises(DeviceNotFound, match=r"there are: phone"):
        revoke_device(desk.engine, "pi")


def test_a_name_is_taken_until_its_device_is_revoked(desk: Desk):
    old = add_device(desk.engine, "pi")
    with pytest.raises(
        DeviceExists,
        match=r"'pi' is registered; `condensery devices remove pi --storage .*` it, or choose another name",
    ):
        add_device(desk.engine, "pi")
    revoke_device(desk.engine, "pi")
    new = add_device(desk.engine, "pi", "boards")
    assert device_by_token(desk.engine, old) is None
    found = device_by_token(desk.engine, new)
    assert found is not None
    assert found.queue == "boards"
    assert listed(desk)["pi"].state == "never enrolled"


@pytest.mark.parametrize("name", ["", "Pi", "pi 5", "host", "-pi", "a" * 64, "virtual:pi", "pi\n", "../pi"])
def test_a_name_that_a_study_file_could_not_hold_is_refused(desk: Desk, name: str):
    with pytest.raises(InvalidSettings, match="a device must be a lower-case name"):
        add_device(desk.engine, name)
    with pytest.raises(InvalidSettings, match="a queue must be a lower-case name"):
        add_device(desk.engine, "pi", name)
    assert list_devices(desk.engine) == []


def test_the_devices_of_a_queue_are_alike(desk: Desk):
    add_device(desk.engine, "one", "pi5")
    with pytest.raises(InvalidSettings, match=r"'one' of queue 'pi5' is real, the new one is virtual, of profile pi"):
        add_device(desk.engine, "two", "pi5", profile="pi")
    add_device(desk.engine, "soft", "counted", profile="pi")
    with pytest.raises(InvalidSettings, match="must be alike"):
        add_device(desk.engine, "softer", "counted", profile="other")
    revoke_device(desk.engine, "soft")
    add_device(desk.engine, "softer", "counted", profile="other")  # the only one that counts now
    assert registry.profile_of_queue(desk.engine, "counted") == "other"
    assert registry.profile_of_queue(desk.engine, "pi5") is None
    assert registry.profile_of_queue(desk.engine, "absent") is None
    assert registry.queues(desk.engine) == {"pi5", "counted"}


def test_a_queue_whose_devices_are_all_revoked_is_no_queue(desk: Desk):
    add_device(desk.engine, "pi")
    revoke_device(desk.engine, "pi")
    assert registry.queues(desk.engine) == set()


def test_the_list_describes_a_device_and_says_when_it_was_last_seen(desk: Desk):
    desk.agent("one", enrol=False)
    two = desk.agent("two")
    desk.clock.tick(10.0)
    two.lease()
    rows = listed(desk)
    assert list(rows) == ["one", "two"]
    assert (rows["one"].state, rows["one"].facts, rows["one"].last_seen_at) == ("never enrolled", {}, None)
    assert rows["two"].state == "online"
    assert rows["two"].facts == FACTS
    assert rows["two"].conditions == CONDITIONS
    assert rows["two"].last_seen_at == desk.clock.now()
    desk.clock.tick(7.0)
    rows = listed(desk)
    assert (rows["one"].seen_s_ago, rows["two"].seen_s_ago) == (None, 7.0)


def test_the_list_says_what_an_agent_is_doing(desk: Desk):
    agent = desk.agent("pi")
    desk.submit("a")
    assert listed(desk)["pi"].doing is None
    (job,) = agent.lease()
    assert listed(desk)["pi"].doing == "leased"
    agent.heartbeat(job, "cooling")
    assert listed(desk)["pi"].doing == "cooling"
    agent.hand_in(job)
    assert listed(desk)["pi"].doing is None


def test_the_list_counts_what_waits_what_is_held_what_counts_and_what_is_in_quarantine(desk: Desk):
    agent = desk.agent("pi")
    desk.submit("a", "b", "c", "d")
    first, second, third = agent.lease(3)
    agent.hand_in(first)
    agent.hand_in(second, wall_report(second.model_sha256, ms=-1.0))  # waits again
    agent.heartbeat(third)
    row = listed(desk)["pi"]
    assert (row.waiting, row.leased, row.accepted, row.quarantined) == (2, 1, 1, 1)


def test_a_device_is_offline_once_it_left_or_was_not_heard_of_for_a_lease(desk: Desk):
    gone, _, live = (desk.agent(name) for name in ("gone", "silent", "live"))
    gone.leave()
    desk.clock.tick(LEASE_S - 1)
    live.lease()
    assert {name: row.state for name, row in listed(desk).items()} == {
        "gone": "offline",
        "silent": "online",
        "live": "online",
    }
    desk.clock.tick(1)
    assert listed(desk)["silent"].state == "offline"
    assert listed(desk)["live"].state == "online"


def test_a_second_agent_waits_until_the_first_is_gone(desk: Desk):
    agent = desk.agent("pi")
    agent.instance = instance_of("another folder")
    assert not agent.enrol()
    desk.clock.tick(LEASE_S)
    assert agent.enrol()


def test_an_agent_that_left_makes_room_at_once(desk: Desk):
    agent = desk.agent("pi")
    agent.leave()
    agent.instance = instance_of("another folder")
    assert agent.enrol()


def test_a_clock_set_back_locks_no_device_up(desk: Desk):
    agent = desk.agent("pi")
    desk.clock.tick(-10_000.0)
    agent.instance = instance_of("another folder")
    assert agent.enrol()


def test_leaving_in_another_instances_name_changes_nothing(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    agent.lease()
    enrolled, agent.instance = agent.instance, instance_of("another folder")
    agent.leave()
    agent.instance = enrolled
    assert desk.job(key).state == "leased"
    assert listed(desk)["pi"].state == "online"


def test_numbers_that_json_does_not_know_are_listed_as_words(desk: Desk):
    agent = desk.agent("pi")
    assert agent.enrol({**FACTS, "cores": float("nan")})
    assert listed(desk)["pi"].facts["cores"] == "nan"


def test_devices_are_read_through_a_read_only_database(desk: Desk, tmp_path: Path):
    from search.store.connection.database import open_for_reading

    desk.agent("pi")
    reader = open_for_reading(sqlite_url(tmp_path))
    assert [row.name for row in list_devices(reader)] == ["pi"]
    assert registry.queues(reader) == {"pi5"}
    reader.dispose()
