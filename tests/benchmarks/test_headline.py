"""The headline benchmark: what a search had after each training, when it had enough; its work folder."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import record
from benchmarks.condensebench.journal import Journal
from benchmarks.headline.__main__ import main
from benchmarks.headline.curves import Reach, Scale, Times, Trained, mean_top1, median_of, reach, times_less
from benchmarks.headline.folder import open_folder
from benchmarks.headline.form import GATED, OURS, PLAIN, SMALL, WHOLE, Form
from benchmarks.headline.peer import journal_of
from benchmarks.headline.processor import own_seconds, tree_seconds
from benchmarks.headline.report import as_table, figures
from search.study_file import settings_from
from space.errors import InvalidSettings

CHEAP = Trained(10.0, "cheap", (1.0, 100.0), 0.5, True)
MIDDLE = Trained(20.0, "middle", (2.0, 200.0), 0.8, True)
DEAR = Trained(30.0, "dear", (4.0, 400.0), 0.9, True)
OVER = Trained(40.0, "over", (0.5, 50.0), 0.99, False)
ALL = {PLAIN: None, GATED: None, OURS: None}


def curve_of(*trainings: Trained) -> list[float]:
    everything = [CHEAP, MIDDLE, DEAR, OVER]
    return list(Scale.of(everything).curve(trainings, mean_top1([*everything, *trainings])))


def test_a_curve_only_rises_and_neither_repeats_nor_networks_over_the_limit_raise_it():
    curve = curve_of(MIDDLE, OVER, MIDDLE._replace(seconds=50.0), DEAR, CHEAP)
    assert curve[0] == curve[1] == curve[2] < curve[3]
    assert curve == sorted(curve)
    assert curve[0] == pytest.approx((1.05 - 0.5) ** 2 * (0.75 - 0.3))  # half of each cost's logarithms, 3/4 of top-1


def test_a_network_that_several_searches_trained_counts_with_its_mean_accuracy():
    lucky = MIDDLE._replace(top1=0.84)
    assert mean_top1([MIDDLE, lucky, DEAR]) == {"middle": pytest.approx(0.82), "dear": 0.9}
    assert curve_of(MIDDLE)[0] < curve_of(lucky)[0]


def test_all_networks_together_have_the_volume_of_the_last_point_of_their_curve():
    everything = [DEAR, OVER, CHEAP, MIDDLE]
    scale, top1 = Scale.of(everything), mean_top1(everything)
    assert scale.volume(everything, top1) == pytest.approx(scale.curve(everything, top1)[-1])


def test_a_scale_of_equal_costs_is_no_division_by_zero():
    same = [CHEAP, CHEAP._replace(network="other", top1=0.6)]
    assert list(Scale.of(same).curve(same, mean_top1(same))) == [0.0, pytest.approx(1.05**2 * 0.7)]


def test_a_goal_is_reached_by_the_first_training_that_comes_to_it_exactly():
    trainings = [CHEAP, MIDDLE, DEAR, OVER]
    curve = Scale.of(trainings).curve(trainings, mean_top1(trainings))
    assert reach(trainings, curve, curve[2]) == Reach(30.0, 3, True)
    assert reach(trainings, curve, curve[1]) == Reach(20.0, 2, True)


def test_who_never_reaches_the_goal_has_spent_all_and_that_is_a_bound():
    trainings = [CHEAP, MIDDLE]
    curve = Scale.of(trainings).curve(trainings, mean_top1(trainings))
    never = reach(trainings, curve, 9.0)
    assert never == Reach(20.0, 2, False)
    assert times_less(Reach(10.0, 4, True), never, "seconds") == Times(2.0, True)
    assert times_less(Reach(10.0, 4, True), never, "trainings") == Times(0.5, True)
    assert times_less(never, Reach(10.0, 4, True), "seconds") is None
    assert reach([], Scale.of(trainings).curve([], {}), 1.0) == Reach(0.0, 0, False)


def test_a_median_is_a_bound_where_a_bound_may_have_moved_it():
    exact, bound = Times(3.0, False), Times(2.0, True)
    assert median_of([exact, Times(5.0, False), Times(4.0, False)]) == Times(4.0, False)
    assert median_of([exact, Times(4.0, False), Times(9.0, True)]) == Times(4.0, False)  # the bound lies above
    assert median_of([exact, bound, Times(4.0, False)]) == Times(3.0, True)
    assert median_of([exact, Times(5.0, False)]) == Times(4.0, False)
    assert median_of([exact, None, Times(4.0, False)]) == exact
    assert median_of([exact, None, None]) is None
    assert (str(exact), str(bound)) == ("3.0", "more than 2.0")


def row(seconds: float, one: Trained, state: str = "trained") -> dict[str, Any]:
    figures_of = {"latency_ms": one.costs[0], "macs": int(one.costs[1]), "top1": one.top1} if state == "trained" else {}
    base = {"macs": int(one.costs[1]), "state": state, "seconds": seconds, "network": one.network, "inside": one.inside}
    return base | figures_of


ROWS = {
    PLAIN: [row(100.0, OVER), row(200.0, CHEAP), row(300.0, MIDDLE, "failed")],
    GATED: [row(5.0, OVER, "refused"), row(100.0, CHEAP), row(200.0, DEAR), row(300.0, MIDDLE)],
    OURS: [row(20.0, CHEAP), row(40.0, DEAR), row(60.0, MIDDLE)],
}


def fill(work: Path, rows: Mapping[str, list[dict[str, Any]]], seed: int = 0) -> None:
    for name, some in rows.items():
        journal = Journal(journal_of(work, seed, name))
        for one in some:
            journal.append(one)


def test_the_journals_become_a_table_and_refused_or_failed_ones_reach_nothing(tmp_path: Path):
    fill(tmp_path, ROWS)
    found = figures(tmp_path, 1, ALL)
    goal = found["by_share"]["98%"]
    assert goal[OURS] == [{"seconds": 60.0, "trainings": 3, "reached": True}]
    assert goal[PLAIN] == [{"seconds": 300.0, "trainings": 3, "reached": False}]
    assert goal["than_plain"]["seconds"]["median"] == {"times": 5.0, "at_least": True}
    assert goal["than_gated"]["seconds"]["by_seed"] == [{"times": 5.0, "at_least": False}]
    assert goal["than_gated"]["trainings"]["median"] == {"times": 1.0, "at_least": False}
    assert found["to_a_peers_end"][GATED]["seconds"]["median"] == {"times": 5.0, "at_least": False}
    assert found["seeds"][0][PLAIN]["within_the_limit"] == 1
    table = as_table(found)
    assert "| Optuna's TPE, plain loop | 98% | > 300 | > 3 |" in table
    assert "plain loop: more than 5.0 times the processor seconds" in table
    assert "at the end, condensery launch: 100.0% after 3 trainings and 60 s" in table


def test_trainings_that_are_all_over_the_limit_are_nothing_to_compare(tmp_path: Path):
    fill(tmp_path, {name: [row(10.0, OVER)] for name in (PLAIN, GATED, OURS)})
    with pytest.raises(InvalidSettings, match="no training of each search"):
        figures(tmp_path, 1, ALL)


# -- the work folder and what is saved of it --


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    return tmp_path / "results" / "headline.json"


def form_saved(path: Path) -> tuple[int, ...]:
    form = json.loads(path.read_text())["result"]["form"]
    return form["seeds"], form["trainings"], form["peer_trainings"], form["same"]


def test_a_report_saves_as_its_form_what_every_seed_has_and_counts_no_more_than_was_asked(tmp_path: Path, saved: Path):
    work = tmp_path / "work"
    open_folder(WHOLE, work)
    for seed in range(4):
        fill(work, ROWS, seed)
    fill(work, {GATED: [row(400.0, OVER)], OURS: [row(80.0, CHEAP)]}, seed=1)
    fill(work, {PLAIN: [row(100.0, CHEAP)]}, seed=4)  # it has only just begun
    given = ["--report", "--work", str(work)]
    main(given)
    assert form_saved(saved) == (4, 3, 3, 0)
    main([*given, "--trainings", "2", "--peer-trainings", "1", "--seeds", "3"])
    assert form_saved(saved) == (3, 2, 1, 0)
    result = json.loads(saved.read_text())["result"]
    assert [len(seed[name]["each"]) for seed in result["seeds"] for name in (PLAIN, GATED, OURS)] == [1, 1, 2] * 3
    main([*given, "--trainings", "200", "--peer-trainings", "300", "--seeds", "9"])
    assert form_saved(saved) == (4, 3, 3, 0)


def test_a_folder_may_grow_and_its_form_stays(tmp_path: Path):
    open_folder(WHOLE, tmp_path / "work")
    before = (tmp_path / "work" / "form.json").read_bytes()
    open_folder(replace(WHOLE, seeds=9, trainings=200, peer_trainings=300, same=7), tmp_path / "work")
    assert (tmp_path / "work" / "form.json").read_bytes() == before
    with pytest.raises(InvalidSettings, match="of another form"):
        open_folder(replace(WHOLE, epochs=5), tmp_path / "work")


UNUSABLE = {
    "a file": "must be a folder that can be",
    "garbage": "form.json must say what the searches are, but isn't JSON",
    "small": "holds searches of another form",
}


@pytest.mark.parametrize("what", UNUSABLE)
@pytest.mark.parametrize("more", [[], ["--report"]])
def test_an_unusable_work_folder_is_one_line_and_nothing_is_run_or_saved(
    what: str, more: list[str], tmp_path: Path, saved: Path, capsys: pytest.CaptureFixture[str]
):
    work = tmp_path / "work"
    if what == "a file":
        work.write_text("not a folder")
    else:
        open_folder(SMALL, work)
        fill(work, ROWS)
    if what == "garbage":
        (work / "form.json").write_bytes(b"\xff{")
    with pytest.raises(SystemExit) as exit_:
        main(["--work", str(work), *more])
    assert exit_.value.code == InvalidSettings.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert UNUSABLE[what] in line
    assert not saved.exists()
    assert not work.is_dir() or not list(work.glob("study-*.toml"))


def test_a_report_of_no_folder_makes_none(tmp_path: Path, saved: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        main(["--work", str(tmp_path / "work"), "--report"])
    assert exit_.value.code == InvalidSettings.exit_code
    assert "holds no searches of this benchmark" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("form", [WHOLE, SMALL])
def test_each_form_is_a_study_file_that_leaves_sampler_and_stopping_as_they_come(form: Form):
    settings = settings_from(tomllib.loads(form.study_file(2)), "study.toml")
    assert (settings.study.seed, settings.study.trainings, settings.engine.workers) == (2, form.trainings, 1)
    assert "sampler" not in form.study_file(2)
    assert "stopping" not in form.study_file(2)


def test_a_process_and_all_below_it_have_spent_no_less_than_it_has_and_one_that_is_gone_nothing():
    before = own_seconds()
    assert tree_seconds(os.getpid()) >= before - 0.1  # the system counts in hundredths
    assert tree_seconds(2**30) == 0.0
