"""Requests that no page of ours makes: none is a fault of the program's."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.page import make_app
from tests.dashboards.studies import Study, lively

NUMBERS = st.sampled_from([-1, 2**31, 2**63, 10**400, float("inf"), float("nan"), True, None]) | st.integers()
TEXTS = st.sampled_from(
    ["", "\ud800", "\0", "1" * 5000, "[" * 100_000, "1e999", "nan", '[["macs",[[0,1]]]]', '[["macs",1]]']
)
KEYS = st.sampled_from(["study", "group", "axis", "type", "filter", "filterType", "sort", "colId", "conditions"])
VALUES = st.recursive(
    NUMBERS | TEXTS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
PATHS = ["/", "/news", "/rows", "/trials.csv", "/chart-table/front", "/chart-table/x", "/bundle/0.zip", "/nothing"]
PATHS += ["/steering", "/steering/plan"]
PATHS += [f"/bundle/{10**30}.zip", f"/bundle/{'9' * 5000}.zip"]
QUERY = [
    "study",
    "start",
    "end",
    "sort",
    "filter",
    "brush",
    "group",
    "axis",
    "fast",
    "budget.host",
    "token",
    "trial",
    "config",
]
UPDATE = "/_dash-update-component"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return lively(tmp_path_factory.mktemp("lively"))


@pytest.fixture(scope="module")
def client(study: Study) -> Any:
    client = make_app(f"sqlite:///{study.folder / 'study.db'}").server.test_client()
    client.environ_base["HTTP_HOST"] = "localhost"
    return client


@pytest.fixture(scope="module")
def callbacks(client: Any) -> list[Any]:
    known = client.get("/_dash-dependencies").json
    return [callback for callback in known if not callback.get("clientside_function")]


@given(path=st.sampled_from(PATHS), query=st.dictionaries(st.sampled_from(QUERY), VALUES, max_size=3))
def test_no_address_is_a_fault(client, path, query):
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
    latin = {name: text.encode("utf-8", "surrogatepass").decode("latin-1") for name, text in texts.items()}
    assert client.get(path, query_string=latin).status_code < 500


@given(data=st.data())
def test_no_body_is_a_fault(client, callbacks, data):
    callback = data.draw(st.sampled_from(callbacks))
    names = [name.rsplit(".", 1) for name in callback["output"].strip(".").split("...")]
    outputs = [{"id": part, "property": what} for part, what in names]
    body: Any = {
        "output": callback["output"],
        "outputs": outputs if len(outputs) > 1 else outputs[0],
        "changedPropIds": [],
        **{place: [{**item, "value": data.draw(VALUES)} for item in callback[place]] for place in ("inputs", "state")},
    }
    if data.draw(st.integers(0, 3)) == 0:
        body[data.draw(st.sampled_from(sorted(body)))] = data.draw(VALUES)
    elif data.draw(st.integers(0, 9)) == 0:
        body = data.draw(VALUES)
    assert client.post(UPDATE, json=body).status_code < 500


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"output":' + b'{"a":' * 3000])
def test_what_is_no_json_is_no_fault(client, body):
    answer = client.post(UPDATE, data=body, content_type="application/json")
    assert (answer.status_code, b"Traceback" in answer.data) == (400, False)


def test_a_fault_of_ours_is_one_and_is_in_the_log(client, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise ValueError("our own")

    monkeypatch.setattr("dashboards.page.callbacks.numbers_of", fail)
    known = client.get("/_dash-dependencies").json
    comparison = next(callback for callback in known if "comparison-body" in callback["output"])
    names = [name.rsplit(".", 1) for name in comparison["output"].strip(".").split("...")]
    body = {
        "output": comparison["output"],
        "outputs": [{"id": part, "property": what} for part, what in names],
        "changedPropIds": ["chosen.data"],
        **{place: [{**item, "value": None} for item in comparison[place]] for place in ("inputs", "state")},
    }
    with caplog.at_level(logging.ERROR):
        assert client.post(UPDATE, json=body).status_code == 500
    assert "our own" in caplog.text
