"""What the live page fetches: news, rows, CSV, tables of charts and bundles."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from dashboards.page import charts, make_app, study_cache
from dashboards.page.study_cache import guarded
from tests.dashboards.studies import Study, lively


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return lively(tmp_path_factory.mktemp("lively"))


def client_of(made: Study) -> Any:
    client = make_app(f"sqlite:///{made.folder / 'study.db'}").server.test_client()
    client.environ_base["HTTP_HOST"] = "localhost"
    return client


@pytest.fixture(scope="module")
def client(study: Study) -> Any:
    return client_of(study)


def asked(client: Any, path: str, **query: Any) -> Any:
    return client.get(path, query_string={k: v if isinstance(v, str) else json.dumps(v) for k, v in query.items()})


def column(client: Any, name: str, **query: Any) -> list[str]:
    return [row[name] for row in asked(client, "/rows", **query).json["rows"]]


# ---- news -----------------------------------------------------------------------------------------------


def test_a_poll_with_nothing_new_is_answered_by_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "PULSE_S", 1e9)  # the next would be news
    monkeypatch.setattr(study_cache, "COSTLY_EVERY_S", 1e9)
    made = lively(tmp_path)
    client = client_of(made)
    news = asked(client, "/news").json
    assert news["stale"] is None
    known = {"fast": news["fast"], "slow": news["slow"], "pulse": str(news["pulse"])}
    assert asked(client, "/news", **known).status_code == 204
    assert asked(client, "/news", **{**known, "pulse": "0"}).status_code == 200
    made.done(0.2, 0.95)
    later = asked(client, "/news", **known)
    assert later.status_code == 200
    assert later.json["fast"] != news["fast"]
    assert later.json["slow"] == news["slow"]  # costly charts wait
    assert asked(client, "/rows").json["total"] == 33
    filtered = asked(client, "/rows", filter={"state": "fail"}).json
    assert (filtered["total"], filtered["all"]) == (1, 33)


def test_a_database_that_is_away_is_said_and_what_was_known_still_shown(tmp_path: Path) -> None:
    made = lively(tmp_path)
    client = client_of(made)
    news = asked(client, "/news").json
    file = tmp_path / "study.db"
    made.engine.dispose()
    for extra in ("-wal", "-shm"):
        (tmp_path / f"study.db{extra}").unlink(missing_ok=True)
    file.rename(tmp_path / "away.db")
    away = asked(client, "/news", fast=news["fast"]).json
    assert away["stale"]["reason"]
    assert away["fast"] == news["fast"]
    assert asked(client, "/rows").json["total"] == 32
    assert asked(client, "/bundle/0.zip").status_code == 503
    (tmp_path / "away.db").rename(file)
    assert asked(client, "/news").json["stale"] is None


# ---- rows -----------------------------------------------------------------------------------------------


def test_rows_come_best_first_within_the_budget_and_only_as_many_as_asked_for(client: Any, study: Study) -> None:
    answer = asked(client, "/rows", start=3, end=7).json
    every = asked(client, "/rows", end=99999).json["rows"]
    assert answer["rows"] == every[3:7]
    assert answer["total"] == 32
    assert asked(client, "/rows", start=999).json["rows"] == []
    rows = {row.number: row for row in study.rows()}

    def rank(number: int, limit_ms: float) -> tuple[bool, float]:
        row = rows[number]
        inside = row.top1 is not None and row.latency is not None and row.latency.interval_high_ms <= limit_ms
        return not inside, -(row.top1 or 0)

    for limit_ms in (0.4, 0.15):
        numbers = [
            int(one["number"]) for one in asked(client, "/rows", end=99, **{"budget.host": str(limit_ms)}).json["rows"]
        ]
        assert numbers == sorted(numbers, key=lambda number: (*rank(number, limit_ms), number))
    assert [row["·inside"] for row in every] == [row["top1"] != "" for row in every]  # the study was refused the others


@pytest.mark.parametrize("way", ["asc", "desc"])
def test_a_sorted_column_has_what_isnt_known_last(client: Any, way: str) -> None:
    cells = column(client, "top1", sort=[{"colId": "top1", "sort": way}])
    known = [float(text.removesuffix(" %")) for text in cells if text]
    assert known == sorted(known, reverse=way == "desc")
    assert cells[len(known) :] == [""] * (len(cells) - len(known))
    reasons = column(client, "reason", sort=[{"colId": "reason", "sort": way}])
    said = [text for text in reasons if text]
    assert said == sorted(said, reverse=way == "desc")
    assert reasons[: len(said)] == said


def test_the_second_sort_orders_what_is_equal_in_the_first(client: Any) -> None:
    rows = asked(client, "/rows", sort=[{"colId": "state", "sort": "asc"}, {"colId": "number", "sort": "desc"}]).json
    pairs = [(row["state"], -int(row["number"])) for row in rows["rows"]]
    assert pairs == sorted(pairs)


@pytest.mark.parametrize(
    ("filters", "test"),
    [
        ({"state": "=done"}, lambda row: row["state"] == "done"),
        ({"state": "front"}, lambda row: row["front"]),
        ({"config": "g=4"}, lambda row: "G=4" in row["config"]),
        ({"top1": "none"}, lambda row: not row["top1"]),
        ({"top1": "95.0"}, lambda row: row["top1"] and float(row["top1"].removesuffix(" %")) >= 95),
        ({"latency:host": "0.2"}, lambda row: row["latency:host"] and float(row["latency:host"].split()[0]) <= 0.2),
        (
            {"state": "done", "number": "<= 5", "params": " "},
            lambda row: row["state"] == "done" and int(row["number"]) <= 5,
        ),
    ],
)
def test_filters_keep_the_rows_that_they_describe_and_no_other(client: Any, filters: Any, test: Any) -> None:
    every = asked(client, "/rows", end=1000).json["rows"]
    answer = asked(client, "/rows", end=1000, filter=filters).json
    assert answer["rows"] == [row for row in every if test(row)]
    assert 0 < answer["total"] == len(answer["rows"]) < len(every)


def test_a_brush_keeps_the_trials_inside_it(client: Any) -> None:
    every = asked(client, "/rows", end=1000).json["rows"]
    kept = column(client, "number", brush=[["score", [[95.0, 97.0]]]])
    assert kept == [row["number"] for row in every if row["top1"] and 95 <= float(row["top1"].removesuffix(" %")) <= 97]
    assert 0 < len(kept) < len(every)
    assert column(client, "number", brush=[["no-such-axis", [[0, 1]]]]) == [row["number"] for row in every]


@pytest.mark.parametrize(
    "query",
    [
        {"start": "x"},
        {"start": "-5"},
        {"start": "7", "end": "3"},
        {"sort": "{"},
        {"sort": {"a": 1}},
        {"filter": [1]},
        {"filter": {"top1": {"type": "equals"}}},
        {"brush": [[1, 2, 3]]},
        {"brush": [["score", [["a", 2]]]]},
    ],
)
def test_a_question_that_cant_be_read_is_a_400_in_one_sentence(client: Any, query: Any) -> None:
    answer = asked(client, "/rows", **query)
    assert answer.status_code == 400
    assert answer.mimetype == "text/plain"


def test_a_filter_that_cant_be_read_says_so_and_keeps_every_row(client: Any) -> None:
    answer = asked(client, "/rows", filter={"top1": "9x", "nothing": "1", "number": "<3"}).json
    assert answer["total"] == 3
    assert list(answer["wrong"]) == ["top1"]
    assert answer["wrong"]["top1"].startswith("top-1: “9x” can't be read: type 94.5, >=94.5, <94.5")


# ---- CSV ------------------------------------------------------------------------------------------------


def test_the_csv_has_the_filtered_rows_as_plain_numbers(client: Any) -> None:
    answer = asked(client, "/trials.csv", filter={"state": "=done"})
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 25
    assert all(0 < float(row["top1"]) < 1 for row in rows)
    assert all(
        float(row["latency_low_ms.host"]) <= float(row["latency_ms.host"]) <= float(row["latency_high_ms.host"])
        for row in rows
    )


def test_no_cell_of_the_csv_is_a_formula(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.failed("=HYPERLINK(A1)")
    (row,) = csv.DictReader(io.StringIO(asked(client_of(made), "/trials.csv").text))
    assert row["reason"] == "'=HYPERLINK(A1)"


# ---- charts as tables, bundles --------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(charts.CHARTS))
def test_every_chart_has_a_table(client: Any, name: str) -> None:
    table = asked(client, f"/chart-table/{name}").json
    assert table["headers"]
    assert table["rows"]
    assert all(len(row) == len(table["headers"]) for row in table["rows"])


def test_a_bundle_that_cant_be_made_says_why(client: Any) -> None:
    assert asked(client, "/bundle/0.zip").status_code == 404  # its files were never recorded
    assert asked(client, "/rows", study="x" * 10_000).status_code == 404
    missing = asked(client, "/bundle/99.zip")
    assert missing.status_code == 404
    assert "has trials 0 to 31" in missing.text
    assert asked(client, f"/bundle/{10**30}.zip").status_code == 404
    assert asked(client, "/bundle/-1.zip").status_code == 404
    assert asked(client, "/chart-table/nothing").status_code == 400


# ---- what fails -----------------------------------------------------------------------------------------


def test_a_fault_is_a_sentence_in_place_of_the_panel_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def compute() -> Any:
        raise ZeroDivisionError("secret detail")

    found = guarded("The front", compute)
    assert (
        found["reason"] == "The front can't be computed because of a fault of the program; the server's log says more."
    )
    assert "secret detail" not in json.dumps(found)
    assert "secret detail" in caplog.text


def test_the_page_asks_for_what_it_shows_only_where_that_has_changed(client: Any) -> None:
    def posted(stamp: str | None) -> Any:
        body = {
            "output": "..front-payload.data...front-stamp.data..",
            "outputs": [{"id": "front-payload", "property": "data"}, {"id": "front-stamp", "property": "data"}],
            "inputs": [
                {"id": "view", "property": "data", "value": {"axis": "macs"}},
                {"id": "fast", "property": "data", "value": None},
                {"id": "retry", "property": "data", "value": None},
            ],
            "state": [{"id": "front-stamp", "property": "data", "value": stamp}],
            "changedPropIds": ["view.data"],
        }
        return client.post("/_dash-update-component", json=body)

    first = posted(None).json["response"]
    assert first["front-payload"]["data"]["figure"]["data"]
    assert posted(first["front-stamp"]["data"]).status_code == 204
