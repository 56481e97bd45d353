"""A database that is away for a while: the search waits and goes on, and nothing is lost or done twice."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from search.devices.probe import HubProbe, HubProbeSettings
from search.engines.events import EngineEvent
from search.engines.fake import FakeEngine
from search.store.connection import database as opening
from search.store.connection.database import open_for_writing
from search.store.connection.patience import Patience, is_away
from search.study import optuna_storage
from space.errors import StudyBusy
from tests.postgres import database_of, postgres_server
from tests.search.devices.test_probe_requests import good_report
from tests.search.tiny_devices import Desk
from tests.search.tiny_studies import Bench, CountingProbe, assert_consistent
from workers.latency.measurement import Measurement
from workers.latency.policy import QUICK
from workers.training.job import TrialJob


class Server:
    """A PostgreSQL server that can be stopped and started again with its data."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, ExitStack()
        self.start()

    def start(self) -> None:
        self.url = self._running.enter_context(postgres_server(self._folder))

    def stop(self) -> None:
        self._running.close()

    def away(self, seconds: float, missed: Callable[[], object] = lambda: True) -> threading.Thread:
        """Stop it; start it again after a while, once it is `missed`, in a thread."""
        self.stop()

        def later() -> None:
            time.sleep(seconds)
            deadline = time.monotonic() + 60.0
            while not missed() and time.monotonic() < deadline:
                time.sleep(0.05)
            self.start()

        thread = threading.Thread(target=later)
        thread.start()
        return thread


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Server, str]]:
    """A server of this module's own, with the name of a database that has all tables."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = Server(Path(folder) / "data")
        with database_of(server.url) as url:
            open_for_writing(url).dispose()
            optuna_storage(url).engine.dispose()
            yield server, str(sa.make_url(url).database)
        server.stop()


@pytest.fixture
def own_bench(server: tuple[Server, str], tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes a bench on that server."""
    with database_of(server[0].url, server[1]) as url, ExitStack() as after:

        def make(**changes: Any) -> Bench:
            bench = Bench(tmp_path, **changes)
            bench.url = url
            after.callback(bench.close)
            return bench

        yield make


class Interrupted(FakeEngine):
    """Calls `at` before its `nth` call of a method."""

    def __init__(self, method: str, nth: int, at: Callable[[], None]) -> None:
        super().__init__()
        self._method, self._left, self._at = method, nth, at

    def _count(self, method: str) -> None:
        if method == self._method:
            self._left -= 1
            if self._left == 0:
                self._at()

    def submit(self, job: TrialJob) -> None:
        self._count("submit")
        super().submit(job)

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        self._count("poll")
        return super().poll(timeout_s)

    def free_slots(self) -> int:
        self._count("free_slots")
        return super().free_slots()


def run_through(bench: Bench, patience: Patience) -> str:
    controller = bench.controller()
    controller.store.patience = patience
    try:
        return controller.run()
    finally:
        controller.store.release()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "nth"), [("free_slots", 1), ("submit", 1), ("poll", 2)])
def test_a_server_that_restarts_under_a_search_costs_it_nothing_but_time(
    server: tuple[Server, str], own_bench, method: str, nth: int
):
    bench, notes, threads = own_bench(budget__max_macs=40_000), list[str](), list[threading.Thread]()
    bench.engine = Interrupted(method, nth, lambda: threads.append(server[0].away(0.0, lambda: notes)))
    assert run_through(bench, Patience(60.0, notes.append)) == "finished"
    (thread,) = threads
    thread.join()
    assert len(notes) == 2
    assert notes[0].startswith("the database is away (")
    assert notes[0].endswith("); waiting up to 60 s for it …")
    assert notes[1] == "the database is back; going on"
    assert len(bench.done()) == 4
    assert all(row.attempt == 1 for row in bench.done())
    assert len(bench.engine.submitted) == 4
    assert_consistent(bench)
    for row in bench.done():
        assert rows_of(bench, "condensery_curve", row.id) == rows_of(bench, "condensery_latency", row.id) == 1


@pytest.mark.slow
def test_a_server_that_restarts_while_devices_measure_is_waited_for(
    server: tuple[Server, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both its stops: while nobody has the request yet, and while a device is at it."""
    monkeypatch.setattr("search.devices.probe.LOOK_AFTER_S", 0.05)
    model, found = tmp_path / "model.onnx", list[Any]()
    model.write_bytes(b"net")
    with database_of(server[0].url, server[1]) as url:
        desk = Desk(open_for_writing(url))
        desk.clock.set_now(time.time())
        agent = desk.agent("pi")
        probe = HubProbe(desk.engine, HubProbeSettings("pi5", QUICK, model, database_wait_s=60.0))
        search = threading.Thread(target=lambda: found.extend(probe.measure([model])))
        search.start()
        wait_for(desk.requests)
        server[0].away(2.0).join()
        (taken,) = wait_for(agent.lease)
        server[0].away(2.0).join()
        wait_for(lambda: agent.hand_in(taken, good_report(taken.model_sha256)))
        search.join(60.0)
        desk.engine.dispose()
    (one,) = found
    assert isinstance(one, Measurement)


@pytest.mark.slow
def test_without_patience_a_probe_says_that_the_server_is_away(server: tuple[Server, str], tmp_path: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"net")
    with database_of(server[0].url, server[1]) as url:
        engine = open_for_writing(url)
        back = server[0].away(1.0)
        with pytest.raises(exc.OperationalError):
            HubProbe(engine, HubProbeSettings("pi5", QUICK, model)).measure([model])
        back.join()
        engine.dispose()


def wait_for(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Ask again until there is an answer, and the database to give it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if answer := what():
                return answer
        except exc.DBAPIError as error:
            if not is_away(error):
                raise
        time.sleep(0.02)
    raise AssertionError("it never came")


def rows_of(bench: Bench, table: str, key: int) -> int:
    assert bench.study is not None
    with bench.study.engine.connect() as connection:
        return int(connection.scalar(sa.text(f"SELECT count(*) FROM {table} WHERE trial_id = {key}")) or 0)


def test_a_server_that_is_away_while_candidates_are_measured_is_not_even_noticed(server: tuple[Server, str], own_bench):
    bench, threads = own_bench(), list[threading.Thread]()

    class Slow(CountingProbe):
        def measure(self, models, stop=lambda: False):
            found = super().measure(models, stop)
            if not threads:
                threads.append(server[0].away(0.0))
            return found

    bench.probe = Slow()
    assert run_through(bench, Patience(120.0)) == "finished"
    threads[0].join()
    assert_consistent(bench)


@pytest.mark.slow
def test_a_study_is_resumed_by_a_controller_whose_server_goes_away_meanwhile(server: tuple[Server, str], own_bench):
    bench, notes = own_bench(study__trainings=2), list[str]()
    bench.run()
    bench.settings = bench.settings.model_copy(
        update={"study": bench.settings.study.model_copy(update={"trainings": 4})}
    )
    controller = bench.controller(resume=True)
    controller.store.patience = Patience(60.0, notes.append)
    thread = server[0].away(0.0, lambda: notes)
    assert controller.run() == "finished"
    thread.join()
    assert notes[-1] == "the database is back; going on"
    controller.store.release()
    assert len(bench.done()) == 4
    assert_consistent(bench)


def test_without_patience_the_first_error_is_raised_and_the_study_can_be_resumed(server: tuple[Server, str], own_bench):
    bench = own_bench()
    bench.engine = Interrupted("poll", 2, server[0].stop)
    with pytest.raises(exc.OperationalError):
        bench.run()  # its patience is none
    server[0].start()
    bench.engine = FakeEngine()
    assert bench.run(resume=True) == "finished"
    assert len(bench.done()) == 4
    assert_consistent(bench)


@pytest.mark.slow
def test_a_wish_to_stop_ends_the_wait(server: tuple[Server, str], own_bench):
    bench, notes, stop = own_bench(), list[str](), threading.Event()
    bench.engine = Interrupted("poll", 2, server[0].stop)

    def noted(text: str) -> None:
        notes.append(text)
        stop.set()  # Ctrl-C of whoever reads it

    patience = Patience(3600.0, noted, stop.is_set)
    controller = bench.controller()
    controller.store.patience = patience
    with pytest.raises(exc.OperationalError):
        controller.run()
    assert len(notes) == 1
    server[0].start()
    assert bench.run(resume=True) == "finished"
    assert_consistent(bench)


def test_a_takeover_while_the_database_was_away_ends_the_former_controller(server: tuple[Server, str], own_bench):
    bench = own_bench()

    def away_and_taken() -> None:
        server[0].stop()
        server[0].start()
        engine = sa.create_engine(bench.url)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE condensery_study SET controller = 'otherhost:1'"))
        engine.dispose()

    bench.engine = Interrupted("poll", 2, away_and_taken)
    controller = bench.controller()
    controller.store.patience = Patience(60.0)
    with pytest.raises(StudyBusy, match="taken over by otherhost:1"):
        controller.run()


# -- what counts as away --


def error_of(work: Callable[[], object]) -> exc.DBAPIError:
    with pytest.raises(exc.DBAPIError) as caught:
        work()
    return caught.value


def run_sql(url: str | sa.URL, *statements: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("statements", "away"),
    [
        (["SELECT pg_terminate_backend(pg_backend_pid())"], True),
        (["SET TRANSACTION READ ONLY", "CREATE TABLE x (a int)"], True),  # a server that failed over
        (["DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"], True),
        (["DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53300'; END $$"], True),
        (["DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '57P03'; END $$"], True),
        (["DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$"], False),  # its disk is full
        (["SET statement_timeout = 10", "SELECT pg_sleep(5)"], False),
        (["SELECT nothing FROM nowhere"], False),
        (["SELECT 1 / 0"], False),
        (["INSERT INTO condensery_study (id) VALUES (1)"], False),
        (["this is no SQL"], False),
    ],
)
def test_what_a_real_server_says_is_away_or_is_not(postgres: sa.URL, postgres_tables: str, statements, away: bool):
    error = error_of(lambda: run_sql(postgres.set(database=postgres_tables), *statements))
    assert is_away(error) is away, error


def test_a_deadlock_is_tried_again(postgres_url: str):
    run_sql(postgres_url, "CREATE TABLE pair (id int)", "INSERT INTO pair VALUES (1), (2)")
    engine, met = sa.create_engine(postgres_url), threading.Barrier(2)
    seen: list[int] = []

    def both(first: int, second: int) -> None:
        tries = 0

        def once() -> None:
            nonlocal tries
            tries += 1
            with engine.begin() as connection:
                connection.exec_driver_sql(f"UPDATE pair SET id = id WHERE id = {first}")
                if tries == 1:
                    met.wait(30)
                connection.exec_driver_sql(f"UPDATE pair SET id = id WHERE id = {second}")

        Patience(60.0).call(once)
        seen.append(tries)

    threads = [threading.Thread(target=both, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert sorted(seen) == [1, 2]


def test_a_server_that_is_not_there_is_away(tmp_path: Path):
    url = sa.URL.create("postgresql+psycopg", "postgres", database="x", query={"host": str(tmp_path)})
    assert is_away(error_of(lambda: run_sql(url, "SELECT 1")))
    refused = sa.URL.create("postgresql+psycopg", "postgres", host="127.0.0.1", port=1, database="x")
    assert is_away(error_of(lambda: run_sql(refused, "SELECT 1")))


def test_what_sqlite_says_is_away_only_when_it_is_locked(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    run_sql(url, "CREATE TABLE x (a int UNIQUE)", "INSERT INTO x VALUES (1)")
    for statement in ("SELECT * FROM y", "INSERT INTO x VALUES (1)", "no SQL"):
        assert not is_away(error_of(lambda text=statement: run_sql(url, text)))
    full = ("PRAGMA max_page_count = 2", "CREATE TABLE z (a text)", f"INSERT INTO z VALUES ('{'x' * 100_000}')")
    assert not is_away(error_of(lambda: run_sql(url, *full)))
    assert not is_away(error_of(lambda: run_sql(f"sqlite:///{tmp_path / 'no' / 'folder.db'}", "SELECT 1")))
    with sqlite3.connect(tmp_path / "a.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        error = error_of(lambda: run_sql(f"{url}?timeout=0", "INSERT INTO x VALUES (2)"))
        other.execute("ROLLBACK")
    assert is_away(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "held_s", "sqlite_waits_s"),
    [
        ("IMMEDIATE", 1.0, 0.0),
        ("EXCLUSIVE", 1.0, 0.0),
        pytest.param("EXCLUSIVE", 75.0, opening.LOCK_TIMEOUT_S, marks=pytest.mark.soak),
    ],
)
def test_a_sqlite_file_that_another_holds_is_waited_for(make_bench, monkeypatch, kind, held_s, sqlite_waits_s):
    """Longer than SQLite itself waits."""
    monkeypatch.setattr(opening, "LOCK_TIMEOUT_S", sqlite_waits_s)
    bench, holders = make_bench(), []

    def hold() -> None:
        held = threading.Event()

        def holding() -> None:
            other = sqlite3.connect(bench.folder / "study.db", isolation_level=None)
            other.execute(f"BEGIN {kind}")
            held.set()
            time.sleep(held_s)
            other.execute("ROLLBACK")
            other.close()

        holders.append(threading.Thread(target=holding))
        holders[0].start()
        held.wait()

    bench.engine = Interrupted("poll", 2, hold)
    assert run_through(bench, Patience(120.0)) == "finished"
    holders[0].join()
    assert_consistent(bench)


# -- the waiting itself --


def away() -> exc.OperationalError:
    return exc.OperationalError("SELECT 1", {}, sqlite3.OperationalError("database is locked"))


def failing(times: int) -> Callable[[], int]:
    """Work that succeeds after so many calls; returns how often it was called."""
    calls = 0

    def work() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise away()
        return calls

    return work


def test_no_patience_raises_at_once():
    work = failing(1)
    with pytest.raises(exc.OperationalError):
        Patience(0.0).call(work)
    assert work() == 2  # it was called once


def test_a_short_absence_is_nobodys_business():
    notes: list[str] = []
    assert Patience(60.0, notes.append).call(failing(3)) == 4
    assert notes == []


def test_what_is_no_absence_is_raised_at_once():
    calls = []

    def work() -> None:
        calls.append(1)
        raise exc.IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE"))

    with pytest.raises(exc.IntegrityError):
        Patience(60.0).call(work)
    assert calls == [1]


def test_the_wait_ends_when_its_time_is_over():
    work = failing(10**9)
    with pytest.raises(exc.OperationalError):
        Patience(0.5).call(work)
