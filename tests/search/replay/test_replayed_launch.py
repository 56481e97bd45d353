"""A table replayed as a study, from the launch to what is shown of it; then interrupted, killed and gone on with."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path

import pytest

from search.launch import launch
from search.loop.callbacks import SilentCallback
from search.replay.table import SUFFIX, TABLES, ReplayTable, read_table
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.rows import TrialRow
from search.study_file import load_settings
from space.config import CondenseNetConfig
from space.errors import FrozenSettings, NothingTrained, TableUnreadable
from tests.command_line import StartedCommand
from tests.search.replay.replays import WORDS, Replays, command
from tests.search.replay.tiny_tables import TINY, rewritten
from tests.waiting import until
from workers.latency.record import LatencyKind

DEVICE = "virtual:raspberry-pi-5"


@pytest.fixture
def replays_on_each(table_path: Path, database: str, tmp_path: Path) -> Replays:
    return Replays(table_path, database, tmp_path)


def outcomes(rows: list[TrialRow]) -> list[tuple]:
    """What a study found, without the times at which it did."""
    return [(row.number, row.state, row.config, row.reason, row.top1, row.train_seconds) for row in rows]


def order_of_ends(rows: list[TrialRow]) -> list[int]:
    done = [row for row in rows if row.state == "done"]
    return [row.number for row in sorted(done, key=lambda row: (row.finished_at, row.number))]


def test_a_study_is_what_the_table_recorded_and_no_image_is_needed(replays_on_each: Replays, table: ReplayTable):
    ended = replays_on_each.launch()
    assert (ended.ending, ended.done) == ("finished", 8)
    rows, curves = replays_on_each.rows(), replays_on_each.curves()
    limit_ms = replays_on_each.settings().search_budget().max_latency_ms
    for row in rows:
        training = table.trainings.get((row.config, 0))
        if training is None:
            assert row.state in ("infeasible", "duplicate")
            assert row.latency is None
            continue
        latency = training.latencies["native"]
        if row.latency is not None:
            assert (row.latency.kind, row.latency.target, row.latency.policy) == ("estimated", DEVICE, "replayed")
            assert (row.latency.median_ms, row.latency.interval_high_ms) == (latency.median_ms, latency.high_ms)
        if row.state == "infeasible":
            assert latency.high_ms > limit_ms
            assert curves[row.number] == []
        if row.state == "done":
            assert latency.high_ms <= limit_ms
            assert (row.top1, row.train_seconds, row.test_top1) == (training.top1, training.train_seconds, None)
            assert [epoch["val_top1"] for epoch in curves[row.number]] == [epoch.top1 for epoch in training.curve]
    assert {row.state for row in rows} >= {"done", "infeasible"}
    assert not list((replays_on_each.folder / "files").rglob("*.onnx"))
    assert replays_on_each.study().settings["replay"]["sha256"] == table.sha256


def test_a_later_study_learns_no_latencies_from_a_replay(replays: Replays):
    replays.launch()
    assert any(row.latency is not None for row in replays.rows())
    engine = open_for_reading(replays.url)
    try:
        source = reader.LatencySource(DEVICE, "native", 1, LatencyKind.ESTIMATED)
        assert reader.latencies_of_configs(engine, source) == []
        assert reader.count_rows_of_configs(engine, source) == 0
    finally:
        engine.dispose()


def test_equal_seeds_give_equal_studies_and_another_seed_another(replays: Replays):
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        replays.launch(f"study.name={name}", f"study.seed={seed}", "engine.workers=8")
    one, two, three = (replays.rows(name) for name in ("one", "two", "three"))
    assert outcomes(one) == outcomes(two)
    assert order_of_ends(one) == order_of_ends(two)
    assert [row.config for row in one] != [row.config for row in three]
    assert {row.seed for row in three} == {0}  # of the recorded trainings


def test_trainings_end_by_their_recorded_seconds_on_as_many_workers(replays: Replays, table: ReplayTable):
    replays.launch("engine.workers=8", "budget.max_latency_ms=100", "search.sampler=random")
    done = {row.number: row for row in replays.rows() if row.state == "done"}
    for row in done.values():
        seconds = table.trainings[row.config, 0].train_seconds
        assert row.finished_at - row.started_at == pytest.approx(seconds, abs=1e-3)
    first = sorted(done)[:8]
    assert [number for number in order_of_ends(replays.rows()) if number in first] == sorted(
        first, key=lambda number: (done[number].train_seconds, number)
    )


def test_a_network_that_the_table_lacks_is_refused_and_never_replaced(replays: Replays, table: ReplayTable):
    lacking = [config for config in TINY.configs() if config not in table.seeds]
    replays.launch("study.trainings=16", "budget.max_latency_ms=100", "search.sampler=random")
    rows = {row.config: row for row in replays.rows() if row.state != "duplicate"}
    assert sum(row.state == "done" for row in rows.values()) == 13
    for config in lacking:
        assert rows[config].state == "infeasible"
        assert "not in the table" in rows[config].reason
        assert (rows[config].attempt, rows[config].top1, rows[config].latency) == (0, None, None)


def test_another_seed_of_the_trainings_is_asked_for_by_itself(replays: Replays, table: ReplayTable):
    with_both = [config for config, seeds in table.seeds.items() if seeds == (0, 1)]
    assert len(with_both) == 2
    ended = replays.launch("replay.seed=1", "study.trainings=16", "budget.max_latency_ms=100", "search.sampler=random")
    assert (ended.ending, ended.done) == ("exhausted", 2)
    for row in replays.rows():
        if row.state == "done":
            assert row.config in with_both
            assert row.top1 == table.trainings[row.config, 1].top1
        elif row.state == "infeasible" and row.config in table.seeds:
            assert "with seed 0, but not with seed 1" in row.reason


@pytest.mark.parametrize(("stopping", "workers"), [("aggressive", 1), ("conservative", 3)])
def test_what_was_paused_goes_on_when_a_budget_leaves_nothing_else_to_try(tmp_path, stopping: str, workers: int):
    """26 networks of the table that comes with us are inside; none that is over is asked for, here or once resumed."""
    replays = Replays(Path("condensebench"), f"sqlite:///{tmp_path / 'study.db'}", tmp_path)
    words = ["study.trainings=50", "study.seed=3", "search.startup=9", "budget.max_macs=110000"]
    words += [f"search.stopping={stopping}", f"engine.workers={workers}"]
    for resume in (False, True):
        ended = replays.launch(*words, resume=resume)
        assert (ended.ending, ended.done) == ("exhausted", 26)
        rows = replays.rows("condensebench")
        later = [row for row in rows if row.continues is not None]
        assert later
        assert {row.state for row in rows} <= {"done", "pruned"}
        assert len({row.config for row in rows}) == len(rows) - len(later) == 26


@pytest.mark.parametrize("time", ["recorded", "none"])
def test_the_stopping_rule_ends_trainings_at_a_recorded_rung(time: str, table_path: Path, replays: Replays, tmp_path):
    """In this table a larger network is worse, up to its last epoch: the median of the cheaper ones is ahead."""

    def worse_with_macs(lines):
        for line in lines:
            for epoch in (1, 2):
                line[f"top1_{epoch}"] = str(round(0.9 - float(line["macs"]) / 1e5, 5))

    upside_down = rewritten(table_path, tmp_path / "upside-down", worse_with_macs)
    changes = ["search.stopping=rungs", "budget.max_latency_ms=100", f"replay.time={time}", "engine.workers=1"]
    replays.launch("study.trainings=13", "search.sampler=random", *changes, table=upside_down)
    rows, curves = replays.rows(), replays.curves()
    pruned = [row for row in rows if row.state == "pruned"]
    assert pruned
    for row in pruned:
        assert len(curves[row.number]) == 2  # of three epochs: 67 % of the schedule is behind the first rung
        assert row.reason.startswith("ended early")


def test_a_study_goes_on_where_it_was_behind_its_own_times(replays: Replays):
    replays.launch("study.trainings=3")
    before = replays.rows()
    replays.launch("study.trainings=6", resume=True)
    after = replays.rows()
    assert outcomes(after)[: len(before)] == outcomes(before)
    latest = max(row.finished_at for row in before)
    assert all(row.asked_at >= latest for row in after[len(before) :])
    assert sum(row.state == "done" for row in after) == 6


def test_a_study_never_goes_on_with_another_table_nor_by_training(replays: Replays, table_path: Path, tmp_path: Path):
    replays.launch("study.trainings=2")
    changed = rewritten(table_path, tmp_path / "changed", lambda lines: lines.pop())
    with pytest.raises(FrozenSettings, match="was replayed from another table"):
        replays.launch(resume=True, table=changed)
    with pytest.raises(FrozenSettings, match=r"replay\.seed"):
        replays.launch("replay.seed=1", resume=True)
    file = tmp_path / "study.toml"
    file.write_text('format = 1\n[study]\nname = "replay"\n[space]\nlayers = 1\ngrowth = 8\n')
    with pytest.raises(FrozenSettings, match="go on with it by --replay"):
        launch(load_settings(file), replays.url, True, SilentCallback())
    moved = rewritten(table_path, tmp_path / "moved")
    about = table_path.with_name(table_path.name.replace(".csv.gz", ".json")).read_text()
    (moved.parent / table_path.name).write_bytes(table_path.read_bytes())
    (moved.parent / table_path.name.replace(".csv.gz", ".json")).write_text(about)
    assert replays.launch("study.trainings=3", resume=True, table=moved).done == 3


def test_a_table_that_changes_between_reading_and_replaying_is_refused(replays: Replays, table_path: Path, tmp_path):
    copy = rewritten(table_path, tmp_path / "copy")
    settings = replays.settings(table=copy)
    rewritten(table_path, tmp_path / "copy", lambda lines: lines.pop())
    with pytest.raises(TableUnreadable, match="not the one that these settings were made for"):
        launch(settings, replays.url, False, SilentCallback())


# -- as a user sees it --


@pytest.mark.slow
def test_there_is_nothing_to_hand_over_but_a_way_to_train_it(shown: Replays):
    best = json.loads(command(shown, "pick", "--preview", "--json").stdout)["trials"][0]
    picked = command(shown, "pick", "--out", "bundle")
    assert picked.returncode == NothingTrained.exit_code == 49
    assert f"Trial {best['number']}, the most accurate inside the budget" in picked.stderr
    assert best["config_text"] in picked.stderr
    assert command(shown, "export", str(best["number"])).returncode == 49
    assert not (shown.folder / "bundle").exists()
    words = f"condensery init train.toml --trial {best['number']} --study replay --storage {shown.url}"
    assert words in picked.stderr
    assert command(shown, "init", "train.toml", "--trial", str(best["number"]), "--study", "replay").returncode == 0
    settings = load_settings(shown.folder / "train.toml")
    space = settings.search_space().for_data((1, 8, 8), 10)
    assert space.size == 1
    assert space.contains(CondenseNetConfig.from_dict(best["config"]))
    assert settings.training_space().from_params({}) == TINY.training
    assert settings.data.of_content() == TINY.data.of_content()
    assert (settings.study.trainings, settings.study.seed, settings.replay.table) == (1, 0, None)


@pytest.mark.slow
def test_doctor_finds_nothing_wrong_with_files_that_never_were(shown: Replays):
    examined = command(shown, "doctor")
    assert examined.returncode == 0, examined.stdout
    assert "nothing is wrong" in examined.stderr


@pytest.mark.slow
def test_a_damaged_table_is_one_line_with_its_exit_code(replays: Replays, tmp_path: Path):
    broken = rewritten(replays.table, tmp_path / "broken")
    broken.write_bytes(b"no table")
    for words in (["--replay", broken], ["--replay", "nothing-of-the-kind"]):
        failed = command(replays, "launch", *words)
        assert failed.returncode == TableUnreadable.exit_code == 23
        assert failed.stderr.strip().splitlines()[-1].startswith("error: ")
        assert "Traceback" not in failed.stderr
    neither = command(replays, "launch")
    assert neither.returncode == 2
    assert "--replay" in neither.stderr


def started(replays: Replays, *words: str) -> StartedCommand:
    words = ("launch", "--replay", str(replays.table), "--resume", *words, "--storage", replays.url)
    changes = [
        word for change in (*WORDS, "study.trainings=13", "budget.max_latency_ms=100") for word in ("--set", change)
    ]
    return StartedCommand(*words, *changes, cwd=replays.folder, log=replays.folder / "log.txt")


def done_in(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return int(connection.execute("select count(*) from condensery_trial where state = 'done'").fetchone()[0])


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_an_interrupted_study_ends_as_an_undisturbed_one(sent: signal.Signals, replays: Replays):
    database = Path(replays.url.removeprefix("sqlite:///"))
    process = started(replays)
    until(lambda: done_in(database) >= 1 or process.poll() is not None)
    process.send_signal(sent)
    code = process.wait(60)
    assert code in (0, -sent, 130)  # it may just have ended
    assert started(replays).wait(60) == 0
    rows = replays.rows()
    done = [row for row in rows if row.state == "done"]
    assert len(done) == len({row.config for row in done}) == 13
    assert all(row.state in ("done", "infeasible", "duplicate") for row in rows)
    curves = replays.curves()
    assert all([epoch["epoch"] for epoch in curves[row.number]] == [1, 2, 3] for row in done)


def test_the_curve_rule_ends_trainings_of_the_shipped_table_that_would_not_be_on_its_front(replays: Replays):
    changes = ["search.stopping=aggressive", "search.sampler=random", "replay.time=none", "budget.max_latency_ms=100"]
    replays.launch("study.trainings=40", *changes, table=TABLES / f"condensebench-fashion-mnist{SUFFIX}")
    table, rows = read_table("condensebench"), replays.rows("condensebench")
    pruned = [row for row in rows if row.state == "pruned"]
    assert len(pruned) >= 5
    done = [(row.macs, row.latency.median_ms, row.top1) for row in rows if row.state == "done"]
    for row in pruned:
        top1 = table.trainings[row.config, 0].top1
        ahead = [macs <= row.macs and ms <= row.latency.median_ms and best >= top1 for macs, ms, best in done]
        assert any(ahead), f"trial {row.number} would have been on the front: {row.reason}"
