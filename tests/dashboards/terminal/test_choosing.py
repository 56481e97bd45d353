"""Which trials `trials` and `pareto` show, in which order and form."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import condensery
from dashboards.terminal import trial_tables
from dashboards.terminal.choosing import chosen_trials
from space.errors import InvalidSettings
from tests.dashboards.studies import Study, lively
from tests.dashboards.terminal.test_read_tables import shown


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return lively(tmp_path_factory.mktemp("lively"))


def printed(made: Study, *words: str) -> str:
    done = CliRunner().invoke(condensery.app, [*words, "--storage", f"sqlite:///{made.folder / 'study.db'}"])
    assert done.exit_code == 0, done.exception
    return done.stdout


@pytest.mark.parametrize(
    ("condition", "passes"),
    [
        ("latency_ms<0.3", lambda row: row.latency is not None and row.latency.median_ms < 0.3),
        ("latency_ms >= 0.3", lambda row: row.latency is not None and row.latency.median_ms >= 0.3),
        ("latency_ms.host<0.3", lambda row: row.latency is not None and row.latency.median_ms < 0.3),
        ("state=done", lambda row: row.state == "done"),
        ("state!=done", lambda row: row.state != "done"),
        ("macs>20k", lambda row: row.macs > 20_000),
        ("macs>0.02M", lambda row: row.macs > 20_000),
        ("top1>=95%", lambda row: row.top1 is not None and row.top1 >= 0.95),
        ("top1>=0.95", lambda row: row.top1 is not None and row.top1 >= 0.95),
        ("number==3", lambda row: row.number == 3),
        ("groups=1", lambda row: row.config.groups == 1),
    ],
)
def test_a_condition_passes_the_trials_of_which_it_is_true(made: Study, condition: str, passes) -> None:
    rows = made.rows()
    assert chosen_trials(rows, [condition]) == [row for row in rows if passes(row)]


def test_conditions_add_up_and_the_limit_comes_last(made: Study) -> None:
    rows = made.rows()
    chosen = chosen_trials(rows, ["state=done", "latency_ms<0.35"], "top1", 2)
    fitting = [row for row in rows if row.state == "done" and row.latency is not None and row.latency.median_ms < 0.35]
    assert len(fitting) > 2
    assert [row.top1 for row in chosen] == sorted((row.top1 for row in fitting), reverse=True)[:2]


@pytest.mark.parametrize("sort", ["top1", "-top1", "latency_ms", "-latency_ms", "state"])
def test_the_best_come_first_and_trials_without_the_value_last(made: Study, sort: str) -> None:
    name = sort.removeprefix("-")

    def value(row):
        latency = None if row.latency is None else row.latency.median_ms
        return latency if name == "latency_ms" else getattr(row, name)

    values = [value(row) for row in chosen_trials(made.rows(), sort=sort)]
    known = [one for one in values if one is not None]
    assert values[: len(known)] == known
    assert known == sorted(known, reverse=sort in ("top1", "-latency_ms"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"where": ["latncy_ms<5"]}, r"no column 'latncy_ms'; did you mean 'latency_ms'\? There are: number, config"),
        ({"where": ["latency_ms"]}, r"--where must be a column, one of < .* and a value, like 'latency_ms<5'"),
        ({"where": ["latency_ms<"]}, "and a value"),
        ({"where": ["latency_ms<fast"]}, "latency_ms is a number, like 5, 1.5M or 97%, but got 'fast'"),
        ({"where": ["top1>97"]}, "top1 is a share of 1, so none is above; write 97% or 0.97"),
        ({"where": ["state<done"]}, "state is a text, which can be = or != only"),
        ({"sort": "speed"}, "--sort speed: there is no column 'speed'"),
    ],
)
def test_what_cannot_be_chosen_is_one_line_that_says_what_can(made: Study, given, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message) as caught:
        chosen_trials(made.rows(), **given)
    assert "\n" not in str(caught.value)


def test_text_json_and_csv_show_the_same_trials_in_the_same_order(made: Study) -> None:
    words = ("trials", "--where", "state=done", "--sort", "latency_ms", "--limit", "3")
    expected = [row.number for row in chosen_trials(made.rows(), ["state=done"], "latency_ms", 3)]
    assert [trial["number"] for trial in json.loads(printed(made, *words, "--json"))["trials"]] == expected
    table = list(csv.DictReader(io.StringIO(printed(made, *words, "--csv", "-"))))
    assert [int(row["number"]) for row in table] == expected
    assert {"state", "top1", "latency_ms.host", "latency_kind.host", "macs", "params"} <= table[0].keys()
    lines = printed(made, *words, "--wide").splitlines()
    assert [int(line.split()[0]) for line in lines[2:5]] == expected


def test_several_forms_at_once_are_refused(made: Study) -> None:
    words = ["pareto", "--json", "--csv", "-", "--storage", f"sqlite:///{made.folder / 'study.db'}"]
    assert "one of --json, --csv can be given, not several" in str(CliRunner().invoke(condensery.app, words).exception)


def body(text: str) -> list[str]:
    """The rows of a table, without its heading and what is below it."""
    lines = text.splitlines()
    below = (place for place, line in enumerate(lines) if place > 1 and (not line.strip() or "latency: " in line))
    return lines[2 : next(below, len(lines))]


def test_from_100_columns_on_a_trial_takes_one_line_and_the_heading_names_the_device(made: Study) -> None:
    rows = made.rows()
    for width in (100, 140):
        text = shown(trial_tables.trials_table(rows), width)
        assert [line.split()[0] for line in body(text)] == [str(row.number) for row in rows]
        assert "ms on host" in text.splitlines()[0]
        assert max(map(len, text.splitlines())) <= width
    assert len(body(shown(trial_tables.trials_table(rows), 60))) > len(rows)


def test_both_tables_have_the_same_columns_in_the_same_order(made: Study) -> None:
    done = [row for row in made.rows() if row.state == "done"]
    for width in (80, 120):
        trials = shown(trial_tables.trials_table(done), width).splitlines()[0].split()
        front = shown(trial_tables.pareto_table(done), width).splitlines()[0].split()
        both = [word for word in trials if word in front]
        assert both == [word for word in front if word in trials]
        assert {"#", "config", "top-1", "ms", "macs"} <= set(both)


def test_further_devices_have_columns_of_their_own_where_there_is_room(tmp_path: Path) -> None:
    made = Study(tmp_path)
    number = made.priced(0.3)
    made.store.add_latency(number, made.measurement(number, 0.7, device="phone", target="phone"))
    (row,) = made.rows()
    text = shown(trial_tables.trials_table([row]), 120)
    assert "ms on host" in text
    assert "ms on phone" in text
    assert len(body(text)) == 1
    assert "on phone, onnxruntime" in " ".join(text.split())
    assert "on host:intel" in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(("kind", "mark"), [("estimated", "e"), ("predicted", "p")])
def test_estimates_and_predictions_are_marked_and_explained(tmp_path: Path, kind: str, mark: str, width: int) -> None:
    made = Study(tmp_path)
    made.done(0.3, 0.9)
    made.done(0.2, 0.9, kind=kind, policy="standard", device="virtual-arm")
    text = shown(trial_tables.pareto_table(made.rows()), width)
    assert f"{mark}: {kind} from" in text
    assert [f"] {mark}" in line for line in body(text) if "growth" in line].count(True) == 1
    assert f"{mark}:" not in shown(trial_tables.pareto_table(made.rows()[:1]), width)
