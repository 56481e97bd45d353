"""How many trainings a sampler needs: the replay and its rules, the hypervolume, the command."""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sample_efficiency import peers
from benchmarks.sample_efficiency.__main__ import main
from benchmarks.sample_efficiency.hypervolume import LEAST_ACCURACY, MOST_COST, hypervolume, trajectory
from benchmarks.sample_efficiency.replay import Outcome, PeerEnded, Rules, Run, State, play
from benchmarks.sample_efficiency.report import GATED, Measure, figures
from benchmarks.sample_efficiency.table import Columns, Table, read_table
from tests.benchmarks.test_sample_efficiency_table import COLUMNS, rows, written


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return read_table(written(tmp_path, rows()), COLUMNS)


class Scripted:
    """A peer that proposes given networks, over and over, and keeps what it is told."""

    def __init__(self, *proposals: dict[str, int | str]) -> None:
        self._proposals = itertools.cycle(proposals)
        self.told: list[Outcome] = []
        self.added: list[dict[str, int | str]] = []

    def ask(self):
        return next(self._proposals)

    def tell(self, outcome: Outcome) -> None:
        self.told.append(outcome)

    def add(self, params, outcome: Outcome) -> None:
        assert outcome.state == State.DONE
        self.added.append(dict(params))

    def close(self) -> None:
        """Hold nothing."""


# -- the hypervolume --

unit = st.integers(0, 12).map(lambda n: n / 10)  # beyond the reference too, and equal ones
fronts = st.integers(1, 2).flatmap(lambda k: st.lists(st.tuples(unit, *[unit] * k), min_size=1, max_size=7))


def brute_force(points: list[tuple[float, ...]]) -> float:
    """Sum over the subsets of the points: the volume of a union by inclusion and exclusion."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for some in itertools.combinations(points, size):
            height = max(min(point[0] for point in some) - LEAST_ACCURACY, 0)
            sides = [max(MOST_COST - max(costs), 0) for costs in list(zip(*some, strict=True))[1:]]
            total -= (-1) ** size * height * math.prod(sides)
    return total


@given(points=fronts)
def test_the_hypervolume_is_that_of_inclusion_and_exclusion(points: list[tuple[float, ...]]) -> None:
    array = np.array(points)
    assert hypervolume(array[:, 1:], array[:, 0]) == pytest.approx(brute_force(points), abs=1e-9)


@given(points=fronts)
def test_a_trajectory_is_the_hypervolume_after_each_network(points: list[tuple[float, ...]]) -> None:
    array = np.array(points)
    each = [hypervolume(array[:n, 1:], array[:n, 0]) for n in range(1, len(points) + 1)]
    assert trajectory(array[:, 1:], array[:, 0]) == pytest.approx(each, abs=1e-9)


# -- the replay --


def test_rows_that_are_the_same_network_count_once_and_are_known_by_either_name(tmp_path: Path) -> None:
    lines = [*rows(), "1,128,a,9,9,0.9,1,twin", "2,128,a,7,7,0.8,1,twin"]
    columns = Columns(COLUMNS.params, "top1", ["ms"], same="seed")  # all other rows are network 0
    table = read_table(written(tmp_path, lines), columns)
    assert table.accuracy[1] == 0.9
    twins: list[dict[str, int | str]] = [{"depth": d, "width": 4, "block": "a"} for d in (0, 1)]
    assert [table.row(params) for params in twins] == [1, 1]
    peer = Scripted(*twins)
    run = play(peer, table, Rules(trainings=2, retries=3), seed=0)
    assert peer.told[0] == peer.told[1]
    assert (len(run.rows), run.asks, run.repeats, run.drawn) == (2, 5, 4, 1)


def test_only_new_trainings_count_and_what_the_table_lacks_fails(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, rows()[1:]), COLUMNS)  # without the first network
    lacking, first, second = ({"depth": 0, "width": w, "block": b} for w, b in ((0, "a"), (0, "b"), (1, "a")))
    peer = Scripted(lacking, first, first, second)
    run = play(peer, table, Rules(trainings=2, retries=9), seed=0)
    assert [told.state for told in peer.told] == [State.FAILED, State.DONE, State.DONE, State.DONE]
    assert peer.told[1] == peer.told[2]  # the known result, told again
    assert (len(run.rows), run.asks, run.failed, run.repeats, run.drawn) == (2, 4, 1, 1, 0)


def test_a_peer_that_only_repeats_gets_networks_at_random_until_all_are_trained(table: Table) -> None:
    peer = Scripted({"depth": 0, "width": 0, "block": "a"})
    run = play(peer, table, Rules(trainings=100, retries=1), seed=0)
    assert sorted(run.rows) == list(range(24))
    assert (run.drawn, len(peer.added)) == (23, 23)
    assert run.ended == "trained all 24 networks"


def test_the_cap_on_asks_ends_a_peer_that_gets_nowhere_and_says_how_far_it_came(table: Table) -> None:
    run = play(
        Scripted({"depth": 0, "width": 0, "block": "a"}), table, Rules(5, retries=99, asks_per_training=3), seed=0
    )
    assert (len(run.rows), run.asks, run.ended) == (1, 15, "no more than 1 network in 15 asks")


def test_behind_the_gate_nothing_over_the_budget_is_trained_even_at_random(table: Table) -> None:
    limit = 20.0
    over, inside = {"depth": 2, "width": 3, "block": "a"}, {"depth": 0, "width": 0, "block": "a"}
    peer = Scripted(over, inside)
    run = play(peer, table, Rules(trainings=100, retries=1, limits=(limit,), gate=True), seed=0)
    assert peer.told[0].state == State.REFUSED
    assert peer.told[0].accuracy is None
    assert peer.told[0].excess == (pytest.approx(math.log(640 / limit)),)
    assert peer.told[1].excess == (pytest.approx(math.log(8 / limit)),)
    assert sorted(run.rows) == np.flatnonzero(table.costs[:, 0] <= limit).tolist()
    free = play(Scripted(over), table, Rules(trainings=1, limits=(limit,)), seed=0)
    assert table.costs[free.rows[0], 0] > limit


def test_a_peer_that_ends_keeps_what_it_reached(table: Table) -> None:
    class Ending(Scripted):
        def ask(self):
            if self.told:
                raise PeerEnded("no more ideas")
            return super().ask()

    run = play(Ending({"depth": 0, "width": 0, "block": "a"}), table, Rules(trainings=3), seed=0)
    assert (len(run.rows), run.ended) == (1, "no more ideas")


@pytest.mark.parametrize("name", peers.OPTUNA)
@pytest.mark.parametrize("gate", [False, True])
def test_an_optuna_sampler_searches_under_a_budget(name: str, gate: bool, table: Table) -> None:
    limits, again = (40.0,), 1 if name == "gp" else 2  # its asks take seconds
    rules = Rules(trainings=12, retries=0, limits=limits, gate=gate)
    runs = [play(peers.make_peer(name, peers.Task(table, limits, 12), 1, {}), table, rules, 1) for _ in range(again)]
    assert runs[0].rows == runs[-1].rows  # a seed repeats exactly
    assert len(runs[0].rows) == len(set(runs[0].rows)) == min(12, (table.costs[:, 0] <= 40).sum() if gate else 24)
    assert not gate or (table.costs[runs[0].rows, 0] <= 40).all()


def test_the_control_spreads_over_the_costs_inside_the_budget_and_repeats_nothing(table: Table) -> None:
    peer = peers.make_peer(peers.SPREAD, peers.Task(table, (100.0,), 24), 0, {})
    run = play(peer, table, Rules(trainings=24, limits=(100.0,), gate=True), seed=0)
    assert sorted(run.rows) == np.flatnonzero(table.costs[:, 0] <= 100).tolist()
    assert (run.refused, run.repeats, run.drawn) == (0, 0, 0)


def test_the_price_aware_sampler_searches_and_proposes_nothing_over_the_budget(table: Table) -> None:
    peer = peers.make_peer(peers.OURS, peers.Task(table, (100.0,), 10), 0, {})
    run = play(peer, table, Rules(trainings=10, limits=(100.0,), gate=True), seed=0)
    assert len(run.rows) == 10
    assert (run.refused, run.failed) == (0, 0)


# -- the figures --


def test_a_run_that_ended_keeps_what_it_had_and_a_capped_one_says_nothing_beyond(table: Table) -> None:
    measure = Measure(table, (None,))
    ended, capped = measure.curve(Run(rows=[17, 4], ended="stuck"), 4), measure.curve(Run(rows=[17, 4]), 4)
    assert ended[1] == ended[2] == ended[3] > 0
    assert np.isnan(capped[2:]).all()
    assert measure.curve(Run(rows=list(range(24))), 24)[-1] == pytest.approx(1)


def test_with_a_budget_the_best_accuracy_within_it_counts(table: Table) -> None:
    measure = Measure(table, (20.0,))
    over, inside = int(table.costs[:, 0].argmax()), int(table.costs[:, 0].argmin())
    assert measure.curve(Run(rows=[over, inside]), 2).tolist() == [0.0, table.accuracy[inside]]


def test_figures_say_when_a_peer_reaches_what_the_best_of_the_others_has(table: Table) -> None:
    best = int(np.argmax(np.where(table.costs[:, 0] <= 40, table.accuracy, 0)))
    others = [row for row in range(24) if row != best]
    runs = {
        "random": [Run(rows=[*others[:9], best], ended="all")],
        "tpe" + GATED: [Run(rows=[best], ended="all")],
        peers.OURS: [Run(rows=[others[0], best], ended="all")],
        "gp": [Run(rows=others[:5])],
    }
    result = figures(Measure(table, (40.0,)), runs)
    needed = {label: peer["trainings_to_best_peer"] for label, peer in result["peers"].items()}
    assert needed == {"random": 10, "tpe" + GATED: 1, peers.OURS: 2, "gp": None}
    assert list(result["peers"]["gp"]["median"]) == [5]


# -- the command --


def command(folder: Path, *more: str, lines: list[str] | None = None, out: str = "out.json") -> list[str]:
    path = written(folder, rows() if lines is None else lines)
    given = ["--table", str(path), "--params", "depth,width,block", "--accuracy", "top1", "--out", str(folder / out)]
    return [*given, *more]


def test_the_command_compares_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--costs", "ms,macs", "--peers", "random,tpe,syne-tune", "--seeds", "2", "tpe=1", "--trainings", "12"]
    main(command(tmp_path, *more))
    printed = capsys.readouterr().out
    assert "Optuna TPE, seed 0: 12 trainings" in printed
    assert "Syne Tune did not run: " in printed
    document = json.loads((tmp_path / "out.json").read_text())
    result = document["result"]
    assert document["versions"]["optuna"]
    assert (result["networks"], result["costs"]) == (24, ["ms", "macs"])
    assert [len(result["peers"][name]["seeds"]["10"]) for name in ("random", "tpe")] == [2, 1]
    assert list(result["not_run"]) == ["syne-tune"]
    assert [path.name for path in tmp_path.glob("*.json")] == ["out.json"]


def test_with_a_budget_each_peer_runs_behind_the_gate_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(command(tmp_path, "--costs", "ms", "--budget", "ms=25%", "--peers", "random", "--seeds", "2"))
    assert "budget: ms <= " in capsys.readouterr().out
    result = json.loads((tmp_path / "out.json").read_text())["result"]
    assert set(result["peers"]) == {"random", "random" + GATED}
    assert result["networks_within_budget"] == 6
    assert result["peers"]["random" + GATED]["median"]["5"] > 0.5


WRONG = {
    "a network must fit the budget, but none does: ms is at least 8": ["--costs", "ms", "--budget", "ms=7"],
    "--budget must name one of --costs (ms)": ["--costs", "ms", "--budget", "macs=7"],
    "--budget must be COL=NUMBER": ["--costs", "ms", "--budget", "ms=nan"],
    "--costs takes one or two columns": ["--costs", "ms,macs,proxy"],
    "column 'flash' must be in the table": ["--costs", "flash"],
    "--peers knows": ["--costs", "ms", "--peers", "grid"],
    "N or NAME=N must hold": ["--costs", "ms", "--seeds", "0"],
    "must be at least 0, but got -1": ["--costs", "ms", "--retries", "-1"],
    "'ms' is in --costs and --features": ["--costs", "ms", "--features", "ms"],
    "no peer ran": ["--costs", "ms", "--peers", "ax", "--peer-python", "ax=/no/python"],
}


@pytest.mark.parametrize("said", WRONG)
def test_wrong_use_is_one_line_and_exit_code_2(said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(command(tmp_path, *WRONG[said]))
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(("out", "said"), [("nope/x.json", "a folder that is there"), (".", "must be a file")])
def test_a_result_that_could_not_be_saved_is_refused_before_anything_runs(
    out: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(command(tmp_path, "--costs", "ms", "--peers", "random", out=out))
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert said in printed.err.splitlines()[-1]
    assert not printed.out


def test_the_command_says_how_far_the_peers_went_and_counts_one_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{depth},8,a,{depth},{depth},0.{depth},0,0" for depth in (1, 2, 3)]
    asked = ["--costs", "ms", "--peers", "random", "--seeds", "1", "--trainings"]
    main(command(tmp_path, *asked, "12", lines=lines))
    printed = capsys.readouterr().out
    assert "3 networks, 1 parameter," in printed
    assert "the best peer, random, has after 3 trainings: 1 of 1" in printed
    assert "random: 3 trainings, 1 seed (trained all 3 networks)" in printed
    main(command(tmp_path, *asked, "1", lines=lines))
    assert "the best peer, random, has after 1 training: " in capsys.readouterr().out


def test_a_peer_in_another_python_is_asked_and_told(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "FOREIGN", ("made-up",))
    serving = Path(peers.__file__).with_name("foreign_side")
    (tmp_path / "made_up_peer.py").write_text(
        "def version(): return 'made up 1'\n"
        "class Sampler:\n"
        "    def __init__(self, task):\n"
        "        self.names = [p['name'] for p in task['parameters']]\n"
        "        self.depth = 0\n"
        "    def ask(self):\n"
        "        print('a library that prints')\n"
        "        if self.depth == 2: raise RuntimeError('exhausted')\n"
        "        return dict(zip(self.names, [self.depth, 0, 'a']))\n"
        "    def tell(self, outcome): self.depth += outcome['state'] == 'done'\n"
        "    def add(self, params, outcome): pass\n"
    )
    python = tmp_path / "python"  # an interpreter of its own, which has the made-up library
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert serving.is_dir()
    peer = peers.make_peer("made-up", peers.Task(table, (None,), 5), 0, {"made-up": python})
    run = play(peer, table, Rules(trainings=5), seed=0)
    peer.close()
    assert [table.params(row)["depth"] for row in run.rows] == [0, 1]
    assert run.ended == "RuntimeError: exhausted"
    assert np.isnan(Measure(table, (None,)).curve(run, 5)).tolist() == [False, False, True, True, True]
    assert os.access(python, os.X_OK)
