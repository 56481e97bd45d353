"""A device is its board, core, frequencies and memory: no other one shares its queue, its token or its results."""

from __future__ import annotations

from typing import Any

import pytest

from search.devices import registry
from search.devices.agents import UnlikeDevice
from search.store.queue_facts import difference
from tests.search.tiny_devices import FACTS, Desk, wall_report

GENERIC = "ARMv8 Processor rev 0 (v8l)"  # what the kernel calls each of them
NANO = {"board": "NVIDIA Jetson Orin Nano", "part": "0x41:0xd42", "mhz": [115, 1510], "memory_mb": 7987}
AGX = {"board": "NVIDIA Jetson AGX Orin", "part": "0x41:0xd42", "mhz": [115, 2202], "memory_mb": 31744}


def facts(identity: dict[str, Any] | None) -> dict[str, Any]:
    return {**FACTS, "cpu_model": GENERIC, "identity": identity}


def changed(**fields: Any) -> dict[str, Any]:
    return {**NANO, **fields}


# How another device differs from the Nano; None: it may be the same.
OTHERS = [
    (NANO, None),
    (AGX, "board NVIDIA Jetson AGX Orin instead of board NVIDIA Jetson Orin Nano"),
    (changed(part="0x41:0xd0b"), "core 0x41:0xd0b instead of core 0x41:0xd42"),
    (changed(mhz=[115, 1728]), "115-1728 MHz instead of 115-1510 MHz"),
    (changed(mhz=[729, 1510]), "729-1510 MHz instead of 115-1510 MHz"),
    (changed(memory_mb=3990), "3990 MB of memory instead of 7987 MB of memory"),
    (changed(mhz=[115, 1511], memory_mb=7500), None),  # another kernel rounds, and reserves more
    (changed(board=None, mhz=None), None),
    (changed(board="NVIDIA Jetson Orin Nano Rev 1.1"), None),
    (None, None),
]


@pytest.mark.parametrize(("other", "differs"), OTHERS)
def test_what_both_devices_say_is_compared(other: dict[str, Any] | None, differs: str | None):
    assert difference(other, NANO) == differs
    assert (difference(NANO, other) is None) is (differs is None)


def test_boards_that_the_kernel_calls_the_same_share_no_queue(desk: Desk):
    desk.agent("nano", enrol=False).enrol(facts(NANO))
    with pytest.raises(UnlikeDevice, match=r"this one has board .*AGX Orin instead of .* of 'nano' of queue"):
        desk.agent("agx", enrol=False).enrol(facts(AGX))
    assert desk.agent("nano-b", enrol=False).enrol(facts(changed(memory_mb=7990)))


def test_a_token_is_of_the_device_that_enrolled_with_it(desk: Desk):
    agent = desk.agent("nano", enrol=False)
    agent.enrol(facts(NANO))
    with pytest.raises(UnlikeDevice, match=r"'nano' enrolled as another device: this one has board .*AGX Orin instead"):
        agent.enrol(facts(AGX))
    assert agent.enrol(facts(changed(memory_mb=7990)))  # the same one, after an update of its system
    registry.revoke_device(desk.engine, "nano")
    assert desk.agent("nano", enrol=False).enrol(facts(AGX))


def test_a_device_that_enrolled_before_there_were_identities_gets_one(desk: Desk):
    agent = desk.agent("nano", enrol=False)
    agent.enrol(facts(None))
    assert agent.enrol({**facts(NANO), "cpu_model": "NVIDIA Jetson Orin Nano (Cortex-A78AE)"})


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"identity": NANO}, None),
        ({"identity": changed(memory_mb=7990)}, None),
        ({"identity": AGX}, "another device than the one that enrolled: board NVIDIA Jetson AGX Orin instead"),
        ({"identity": changed(mhz=[115, 1728])}, "115-1728 MHz instead of 115-1510 MHz"),
        ({"identity": NANO, "cpu_model": "Cortex-A76"}, "it is of 'Cortex-A76', the device enrolled as 'ARMv8"),
        ({"identity": None}, "it doesn't say of which device it is"),
    ],
)
def test_a_report_of_another_device_than_the_enrolled_one_never_counts(
    desk: Desk, changes: dict[str, Any], doubt: str | None
):
    agent = desk.agent("nano", enrol=False)
    agent.enrol(facts(NANO))
    (key,) = desk.submit("net")
    (job,) = agent.lease()
    report = wall_report(job.model_sha256, **{"cpu_model": GENERIC, **changes})
    verdict = agent.hand_in(job, report)
    assert verdict == ("accepted" if doubt is None else "quarantined")
    if doubt is not None:
        ((_, reason),) = desk.verdicts(key)
        assert doubt in str(reason)


def test_a_result_of_another_board_that_the_kernel_calls_the_same_is_not_used_again(desk: Desk):
    agent = desk.agent("jetson", enrol=False)
    agent.enrol(facts(NANO))
    (key,) = desk.submit("net")
    (job,) = agent.lease()
    agent.hand_in(job, wall_report(job.model_sha256, cpu_model=GENERIC, identity=NANO))
    assert desk.submit("net") == [key]
    registry.revoke_device(desk.engine, "jetson")
    desk.agent("jetson", enrol=False).enrol(facts(AGX))
    assert desk.submit("net") != [key]
