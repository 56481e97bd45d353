"""Who runs a study: one live controller, whose successor locks it out of every write."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from search.store import controller_lease, reader
from search.store.connection import transactions
from search.store.connection.database import open_for_writing
from search.store.controller_lease import LEASE_S, LeaseTimes
from search.store.rows import BeliefRow, NewTrial, StudyRow
from search.store.store import StudyStore
from search.store.studies import create_study
from search.store.tables import event, metadata, study
from space.cost import cost_of
from space.deployed import DeployedCondenseNet
from space.errors import StudyBusy
from tests.search.tiny_studies import CURVE_ROW, INSIDE, CountingProbe, tiny_settings
from tests.simulated_time import EventfulClock
from tests.waiting import until
from workers.clock import SimulatedClock
from workers.export.onnx import save_onnx
from workers.latency import Measurement
from workers.processes import lives, process_name
from workers.training.reporting import ProgressReport

HERE = socket.gethostname()


@pytest.fixture
def store(database: str):
    engine = open_for_writing(database)
    plain = tiny_settings().model_dump(mode="json")
    yield StudyStore(engine, create_study(engine, "one", 1, plain, ("a" * 64, "b" * 64)))
    engine.dispose()


def another(store: StudyStore, me: str = "") -> StudyStore:
    """The same study in the hands of another process."""
    other = StudyStore(store.engine, store.study_id, clock=store._given_clock)
    other.me, other.lease_times = me or other.me, store.lease_times
    return other


@pytest.fixture
def clock(store: StudyStore) -> EventfulClock:
    """The clock that the store then goes by."""
    clock = EventfulClock()
    store.clock = store._given_clock = clock
    return clock


def row_of(store: StudyStore) -> StudyRow:
    return reader.find_study(store.engine, "one")


def events(store: StudyStore) -> list[tuple[str, str]]:
    with store.engine.connect() as connection:
        rows = connection.execute(sa.select(event.c.kind, event.c.detail).order_by(event.c.id))
        return [(row.kind, row.detail) for row in rows]


def trial(number: int) -> NewTrial:
    return NewTrial(number, "sampled", INSIDE, {"epochs": 1}, 3, f"identity-{number}", cost_of(INSIDE))


@pytest.fixture
def living():
    """Another live process of this host: its owner's name, and itself."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process_name(process.pid), process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def neighbour():
    """A live process of this host that no test ends."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process_name(process.pid), process
    process.kill()
    process.communicate()


# -- claiming --


def test_a_claimed_study_is_busy_until_its_process_dies(store: StudyStore, living):
    name, process = living
    another(store, name).claim()
    with pytest.raises(StudyBusy, match=rf"being run by {HERE}:{process.pid} \(host:pid\)"):
        store.claim()
    assert row_of(store).controller == name
    process.kill()
    process.wait()
    store.claim()
    assert row_of(store).controller == store.me
    assert events(store) == [("taken over", f"{transactions.shown(store.me)} takes over from {HERE}:{process.pid}")]


def test_a_pid_used_again_by_another_process_is_not_the_controller(store: StudyStore, living):
    theirs = another(store, f"{HERE}:{living[1].pid}@1")  # begun at another tick than the living one
    theirs.claim()
    store.claim()
    with pytest.raises(StudyBusy, match="taken over"):
        theirs.heartbeat()


@pytest.mark.skipif(sys.platform != "linux", reason="a zombie is known by /proc, on Linux")
def test_a_dead_process_that_nobody_has_waited_for_is_not_the_controller(store: StudyStore, living):
    another(store, living[0]).claim()
    living[1].kill()
    while lives(living[1].pid):
        time.sleep(0.01)
    os.kill(living[1].pid, 0)  # it is there, as a zombie
    store.claim()
    assert row_of(store).controller == store.me


def test_a_fresh_heartbeat_of_another_container_with_this_host_name_wins(
    store: StudyStore, living, clock: EventfulClock
):
    elsewhere = living[0].partition("/")[0] + "/00000000"
    another(store, elsewhere).claim()
    living[1].kill()
    living[1].wait()  # a process of its pid is not here: that says nothing
    with store.engine.begin() as connection:
        connection.execute(sa.update(study).values(controller_seen_at=clock.now()))
    with pytest.raises(StudyBusy):
        store.claim()
    clock.advance(LEASE_S + 1)
    store.claim()


@pytest.mark.parametrize("beats", [False, True], ids=["dead", "alive"])
def test_a_heartbeat_from_the_future_counts_by_whether_it_changes(store: StudyStore, clock: EventfulClock, beats: bool):
    ahead = clock.now() + 86_400
    with store.engine.begin() as connection:
        connection.execute(sa.update(study).values(controller="otherhost:1", controller_seen_at=ahead))

    def beat(waited_s: float) -> None:
        with store.engine.begin() as connection:
            connection.execute(sa.update(study).values(controller_seen_at=ahead + waited_s))

    if beats:
        clock.meanwhile = beat
        with pytest.raises(StudyBusy):
            store.claim()
    else:
        store.claim()
        assert row_of(store).controller == store.me


def test_a_live_process_is_believed_however_long_it_is_silent(store: StudyStore, living, clock: EventfulClock):
    another(store, living[0]).claim()
    clock.advance(100 * LEASE_S)
    with pytest.raises(StudyBusy):
        store.claim()


def test_a_controller_on_another_host_is_believed_while_its_lease_lasts(store: StudyStore, clock: EventfulClock):
    another(store, "elsewhere.example:1").claim()
    clock.advance(LEASE_S - 1.0)
    with pytest.raises(StudyBusy, match=r"elsewhere\.example:1"):
        store.claim()
    clock.advance(1.0)
    store.claim()
    assert [kind for kind, _ in events(store)] == ["taken over"]


def test_claiming_again_is_no_takeover(store: StudyStore):
    store.claim()
    store.claim()
    assert events(store) == []


def test_a_released_study_is_free_and_only_its_owner_releases_it(store: StudyStore, living):
    theirs = another(store, living[0])
    store.claim()
    theirs.release()
    assert row_of(store).controller == store.me
    assert store.is_running()
    store.release()
    assert (row_of(store).controller, row_of(store).controller_seen_at) == (None, None)
    assert not store.is_running()
    theirs.claim()
    assert events(store) == []  # nobody's study was taken


def test_a_wish_to_stop_reaches_the_controller_and_is_forgotten_by_the_next(store: StudyStore):
    store.claim()
    assert store.heartbeat() is False
    assert another(store).request_stop() == store.me
    assert store.heartbeat() is True
    store.claim()
    assert store.heartbeat() is False
    store.release()
    assert another(store).request_stop() is None
    assert row_of(store).stop_requested is False


def test_a_heartbeat_renews_the_lease(store: StudyStore):
    store.claim()
    first = row_of(store).controller_seen_at
    store.heartbeat()
    assert row_of(store).controller_seen_at > first


def test_taking_over_ends_the_attempts_that_were_left_open(store: StudyStore, living):
    theirs = another(store, living[0])
    theirs.claim()
    for number in (0, 1):
        theirs.add_trial(trial(number))
        theirs.set_running(number, 1)
    theirs.end_attempt(1, 1, "failed", "of its own")
    living[1].kill()
    living[1].wait()
    store.claim()
    reason = f"its controller {HERE}:{living[1].pid} is gone"
    found = reader.read_attempts(store.engine, store.study_id)
    assert [(one.number, one.outcome, one.reason) for one in found] == [
        (0, "stopped", reason),
        (1, "failed", "of its own"),
    ]


# -- keeping --

KEEPING = """
import sys
from search.store.connection.database import open_for_writing
from search.store.controller_lease import LeaseTimes
from search.store.store import StudyStore
store = StudyStore(open_for_writing(sys.argv[1]), int(sys.argv[2]))
store.me, store.lease_times = "elsewhere.example:1", LeaseTimes.of_lease(float(sys.argv[3]))
store.claim()
with store.kept():
    print("claimed", flush=True)
    sys.stdin.read()  # at something long
"""
SHORT_S = 2.0  # a lease: on a crowded machine a process may not run for a second


def stands_by(store: StudyStore, most_s: float) -> bool:
    """Stand by for so many seconds of the store's clock; return whether the study was taken over."""
    end = store.clock.monotonic() + most_s
    return store.stand_by(lambda: store.clock.monotonic() > end, lambda text: None)


@pytest.mark.slow
def test_a_kept_study_is_not_taken_over_from_a_process_at_something_long_but_from_a_dead_one(store: StudyStore):
    """With real processes in real time; the tests on a simulated clock say when exactly."""
    store.lease_times = LeaseTimes.of_lease(SHORT_S)
    url = store.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", KEEPING, url, str(store.study_id), str(SHORT_S)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        assert stands_by(store, 1.5 * SHORT_S) is False
        process.kill()
        assert stands_by(store, 60.0) is True
    finally:
        process.kill()
        process.communicate()
    assert [kind for kind, _ in events(store)] == ["taken over"]


def kept_elsewhere(store: StudyStore) -> tuple[StudyStore, Callable[[], None]]:
    """A controller on another host that keeps its claimed study, and what its renewing thread does at each wake-up."""
    theirs = another(store, "elsewhere.example:1")
    theirs.claim()
    return theirs, controller_lease._Renewal(theirs).renew_if_due


def test_a_kept_study_is_taken_over_one_lease_after_its_controller_died(store: StudyStore, clock: EventfulClock):
    _, wake_up = kept_elsewhere(store)
    died_at = 20 * LEASE_S  # at something that takes longer than many leases
    clock.meanwhile = lambda at: wake_up() if at < died_at else None
    assert stands_by(store, 100 * LEASE_S) is True
    assert died_at + LEASE_S - store.lease_times.renew_s <= clock.monotonic() <= died_at + LEASE_S + 1.0
    assert [kind for kind, _ in events(store)] == ["taken over"]


def test_a_lease_is_renewed_by_its_own_clock_while_simulated_time_stands_still(store: StudyStore):
    store.lease_clock = own = SimulatedClock()
    store.claim()
    renewal = controller_lease._Renewal(store)
    store.clock = SimulatedClock()  # of what is recorded of trials; it stands still
    claimed_at = row_of(store).controller_seen_at
    own.advance(store.lease_times.renew_s + 1.0)
    renewal.renew_if_due()
    assert row_of(store).controller_seen_at > claimed_at


def test_a_stuck_controller_loses_its_study_although_its_thread_renews_the_lease(
    store: StudyStore, clock: EventfulClock
):
    """It gives no heartbeat of its own."""
    store.lease_times = replace(LeaseTimes(), stuck_s=5 * LEASE_S)
    theirs, wake_up = kept_elsewhere(store)
    clock.meanwhile = lambda at: wake_up()
    assert stands_by(store, 100 * LEASE_S) is True
    assert 6 * LEASE_S - store.lease_times.renew_s <= clock.monotonic() <= 6 * LEASE_S + 1.0
    with pytest.raises(StudyBusy, match="taken over"):
        theirs.heartbeat()


def test_a_controller_that_gives_heartbeats_of_its_own_is_never_stuck(store: StudyStore, clock: EventfulClock):
    store.lease_times = replace(LeaseTimes(), stuck_s=2 * LEASE_S)
    theirs, wake_up = kept_elsewhere(store)

    def come_round(at: float) -> None:
        wake_up()
        if at % (1.5 * LEASE_S) == 0:
            theirs.heartbeat()

    clock.meanwhile = come_round
    assert stands_by(store, 6 * LEASE_S) is False


def test_the_renewing_thread_writes_no_more_often_than_a_lease_needs(store: StudyStore, clock: EventfulClock):
    theirs, wake_up = kept_elsewhere(store)
    seen: set[float | None] = set()
    for _ in range(4 * 60):
        clock.advance(0.25 * theirs.lease_times.renew_s)
        wake_up()
        seen.add(row_of(store).controller_seen_at)
    assert len(seen) == 60 + 1  # the first look saw the claim


@pytest.mark.slow
def test_a_kept_study_is_renewed_released_at_its_end_and_stays_released(store: StudyStore):
    """With the real thread."""
    store.lease_times = LeaseTimes.of_lease(0.2)
    store.claim()
    claimed_at = row_of(store).controller_seen_at
    with contextlib.suppress(ZeroDivisionError), store.kept():
        until(lambda: row_of(store).controller_seen_at > claimed_at)
        raise ZeroDivisionError
    time.sleep(0.2)
    assert (row_of(store).controller, row_of(store).controller_seen_at) == (None, None)


# -- the fence --


@pytest.fixture(scope="module")
def measurement(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    save_onnx(DeployedCondenseNet.random(INSIDE), path)
    (found,) = CountingProbe().measure([path])
    assert isinstance(found, Measurement)
    return found


WRITES: dict[str, Callable[[StudyStore, Measurement], Any]] = {
    "update_settings": lambda store, _: store.update_settings({}, "c" * 64),
    "set_data_info": lambda store, _: store.set_data_info({"dataset": "x"}),
    "add_trial": lambda store, _: store.add_trial(trial(7)),
    "set_queued": lambda store, _: store.set_queued(0),
    "add_latency": lambda store, found: store.add_latency(0, found),
    "add_point": lambda store, found: store.add_point(0, found, 0.5, 0.5, 1_000, False),
    "finish": lambda store, _: store.finish(0, "done", top1=0.5),
    "add_artifacts": lambda store, _: store.add_artifacts(0, {"model.onnx": ("/a", "1" * 64)}),
    "mark_removed": lambda store, _: store.mark_removed(0),
    "mark_mirrored": lambda store, _: store.mark_mirrored({0: 5}),
    "set_test_top1": lambda store, _: store.set_test_top1(0, 0.5),
    "add_predictions": lambda store, _: store.add_predictions(0, "test", b"x"),
    "add_file_predictions": lambda store, _: store.add_file_predictions(0, "1" * 64, "int8", "test", b"x"),
    "set_star": lambda store, _: store.set_star(0, True),
    "set_note": lambda store, _: store.set_note(0, "a word"),
    "clear_note": lambda store, _: store.clear_note(0),
    "enqueue": lambda store, _: store.enqueue(INSIDE, {}),
    "withdraw": lambda store, _: store.withdraw(1),
    "retry_smaller": lambda store, _: store.retry_smaller(0, {"epochs": 2}, "other"),
    "request_cancel": lambda store, _: store.request_cancel(0),
    "set_running": lambda store, _: store.set_running(0, 2),
    "set_worker": lambda store, _: store.set_worker(0, 1, "late:1"),
    "renew_attempts": lambda store, _: store.renew_attempts([0]),
    "set_reports": lambda store, _: store.set_reports({(0, 1): ProgressReport(0.5, 1.0, None)}),
    "end_attempt": lambda store, _: store.end_attempt(0, 1, "done"),
    "add_curve_row": lambda store, _: store.add_curve_row(0, CURVE_ROW, 1),
    "fill_curve": lambda store, _: store.fill_curve(0, [{**CURVE_ROW, "epoch": 2}]),
    "note_event": lambda store, _: store.note_event("late", "a word"),
    "heartbeat": lambda store, _: store.heartbeat(),
    "set_belief": lambda store, _: store.set_belief(BeliefRow(trainings=1, at=5.0, front=(), ahead=())),
    "transact": lambda store, _: store.transact(lambda: store.set_queued(0)),
    "with_connection": lambda store, _: store.with_connection(lambda on: on.execute(sa.delete(event))),
}
UNFENCED = {  # reading, and the words about who runs the study
    *("claim", "kept", "release", "stand_by", "request_stop", "is_running", "trial", "trials"),
    *("pending_requests", "cancel_requests", "losses_in_a_row", "numbers_of_event", "curves", "newest_time"),
    *("epochs_of", "prices"),
}


def test_every_method_of_the_store_is_held_to_the_fence_or_known_not_to_need_it():
    methods = {name for name in dir(StudyStore) if not name.startswith("_") and callable(getattr(StudyStore, name))}
    assert methods == WRITES.keys() | UNFENCED


def content(store: StudyStore) -> dict[str, list[Any]]:
    with store.engine.connect() as connection:
        return {
            name: sorted(map(repr, connection.execute(sa.select(table)).all()))
            for name, table in metadata.tables.items()
        }


@pytest.mark.slow(seconds=1)
@pytest.mark.parametrize("name", WRITES)
def test_a_former_owner_can_write_nothing(store: StudyStore, neighbour, measurement: Measurement, name: str):
    former = another(store)
    former.claim()
    former.add_trial(trial(0))
    former.set_running(0, 1)
    former.add_artifacts(0, {"model.onnx": ("/b", "2" * 64)})
    successor = another(store, neighbour[0])
    successor.claim(after=former.me)
    successor.set_queued(0)
    before = content(store)
    with pytest.raises(StudyBusy, match=rf"taken over by {HERE}:{neighbour[1].pid}; this process ends here"):
        WRITES[name](former, measurement)
    assert content(store) == before
    former.release()  # what it says at its end takes nothing from the other
    assert content(store) == before


def test_a_takeover_between_two_steps_of_a_transaction_waits_for_its_end(store: StudyStore, living):
    """Both steps are there before the successor is, whatever the database."""
    former, successor = another(store), another(store, living[0])
    former.claim()
    url = store.engine.url.render_as_string(hide_password=False)
    with ThreadPoolExecutor(1) as thread:

        def two_steps() -> Future[int]:
            former.add_trial(trial(0))
            late = thread.submit(_claim, url, successor, former.me)
            time.sleep(0.5)
            former.add_trial(trial(1))
            return late

        assert former.transact(two_steps).result() == 2
    with pytest.raises(StudyBusy):
        former.add_trial(trial(2))


def _claim(url: str, successor: StudyStore, after: str) -> int:
    """Claim over a connection of its own; return how many trials were there then."""
    mine = StudyStore(open_for_writing(url), successor.study_id)
    mine.me = successor.me
    mine.claim(after=after)
    found = len(mine.trials())
    mine.engine.dispose()
    return found


# -- standing by --


STANDING_BY = """
import sys
from pathlib import Path
from search.store.connection.database import open_for_writing
from search.store.controller_lease import LeaseTimes
from search.store.store import StudyStore
store = StudyStore(open_for_writing(sys.argv[1]), int(sys.argv[2]))
store.lease_times = LeaseTimes(look_s=0.1)
print("ready", flush=True)
if store.stand_by(lambda: False, lambda text: None):
    with Path(sys.argv[3]).open("a") as file:
        file.write(store.me + "\\n")
    sys.stdin.read()
"""


@pytest.mark.slow
def test_exactly_one_of_those_that_stand_by_takes_over(store: StudyStore, living, tmp_path: Path):
    name, process = living
    another(store, name).claim()
    url = store.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", STANDING_BY, url, str(store.study_id), str(tmp_path / "won")]
    standing = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        for one in standing:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        assert row_of(store).controller == name
        process.kill()
        process.wait()
        until(lambda: row_of(store).controller != name)
        winner = row_of(store).controller
        until((tmp_path / "won").exists)
        time.sleep(0.4)  # the others have looked again
        assert (tmp_path / "won").read_text() == f"{winner}\n"
        assert row_of(store).controller == winner
        assert [kind for kind, _ in events(store)] == ["taken over"]
        assert [one.poll() for one in standing] == [None] * 4
    finally:
        for one in standing:
            one.kill()
            one.communicate()


@pytest.mark.parametrize("jump_s", [-1e6, -90.0, 0.0, 90.0, 1e6])
def test_a_controller_on_another_host_is_taken_over_once_its_heartbeat_stood_still_whatever_the_clocks_say(
    store: StudyStore, clock: EventfulClock, jump_s: float
):
    with store.engine.begin() as connection:
        last = {"controller": "otherhost:1", "controller_seen_at": time.time()}
        connection.execute(sa.update(study).values(last))

    def beats_for_a_while(waited_s: float) -> None:
        clock.set_now(clock.now() + jump_s / 100)
        if waited_s <= 100.0 and waited_s % 10 == 0:  # its clock jumps as well
            with store.engine.begin() as connection:
                connection.execute(sa.update(study).values(controller_seen_at=time.time() - jump_s * (waited_s % 3)))

    clock.meanwhile = beats_for_a_while
    told: list[str] = []
    assert store.stand_by(lambda: False, told.append) is True
    assert 100.0 + 60.0 <= clock.monotonic() <= 100.0 + 61.0
    assert row_of(store).controller == store.me
    assert told == ["standing by: otherhost:1 (host:pid) runs this study"]
    assert events(store) == [("taken over", f"{transactions.shown(store.me)} takes over from otherhost:1")]


def test_a_time_in_which_the_database_was_away_counts_for_nothing(store: StudyStore, clock: EventfulClock, monkeypatch):
    """The controller could not write its heartbeat then either."""
    look, looks = store._owner, iter(range(10_000))
    with store.engine.begin() as connection:
        connection.execute(sa.update(study).values(controller="otherhost:1", controller_seen_at=0.0))

    def answered_late() -> tuple[str | None, float | None]:
        if next(looks) in (30, 31):
            clock.advance(300.0)
        return look()

    def beats(waited_s: float) -> None:
        if waited_s % 50 == 0:
            with store.engine.begin() as connection:
                connection.execute(sa.update(study).values(controller_seen_at=waited_s))

    clock.meanwhile = beats
    monkeypatch.setattr(store, "_owner", answered_late)
    assert stands_by(store, 900.0) is False
    assert row_of(store).controller == "otherhost:1"


@pytest.mark.parametrize("ahead_s", [-1e6, 1e6])
def test_who_stood_by_longer_does_not_take_over_from_who_was_faster(
    store: StudyStore, clock: EventfulClock, monkeypatch, ahead_s: float
):
    """The faster one is on a third host, whose clock says something else."""
    with store.engine.begin() as connection:
        connection.execute(sa.update(study).values(controller="otherhost:1", controller_seen_at=time.time()))
    claim, faster = store.claim, another(store, "thirdhost:1")

    def claimed_before(after: str | None) -> None:
        if row_of(store).controller == "otherhost:1":
            clock.set_now(clock.now() - ahead_s)
            faster.claim(after=after)
            clock.set_now(clock.now() + ahead_s)
        claim(after)

    monkeypatch.setattr(store, "claim", claimed_before)
    assert stands_by(store, 100.0) is False
    assert row_of(store).controller == "thirdhost:1"


def test_whoever_stands_by_takes_a_study_that_is_released(store: StudyStore, living, clock: EventfulClock):
    theirs = another(store, living[0])
    theirs.claim()
    clock.meanwhile = lambda waited_s: theirs.release() if waited_s == 5.0 else None
    assert store.stand_by(lambda: False, lambda text: None) is True
    assert clock.monotonic() == 5.0
    assert events(store) == []


def test_whoever_stands_by_may_be_told_to_go(store: StudyStore, living, clock: EventfulClock):
    another(store, living[0]).claim()
    looks = iter([False, False, True])
    assert store.stand_by(lambda: next(looks), lambda text: None) is False
    assert clock.monotonic() == 2 * store.lease_times.look_s
    assert row_of(store).controller == living[0]
