"""What the predictor's benchmark keeps beside its result."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import predictor, record


def test_a_result_says_how_its_rows_were_measured_also_when_it_is_fitted_again(tmp_path: Path, monkeypatch):
    """The measuring is cut short: 31 networks would take minutes. Their latencies are their macs'."""
    seen = []

    def as_if_measured(configs, wanted, policy, core, batch):
        seen.append(core)
        rows = [{"config": one.to_dict(), "median_ms": predictor.cost_of(one).macs / 1e7} for one in configs[:wanted]]
        yield rows[:batch]
        yield rows

    monkeypatch.setattr(predictor, "measured", as_if_measured)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    words = ["predictor", "--networks", "31", "--repeats", "1"]
    monkeypatch.setattr(predictor, "peers", dict)
    monkeypatch.setattr(sys, "argv", [*words, "--policy", "quick"])
    predictor.main()
    path = tmp_path / "predictor_cifar_quick_0.json"
    first = json.loads(path.read_text())["result"]["measured"]
    assert first == {"policy": "quick", "core": seen[0], "seed": 0, "batch": predictor.BATCH}
    monkeypatch.setattr(sys, "argv", [*words, "--from", str(path)])
    predictor.main()
    document = json.loads(path.read_text())
    assert document["result"]["measured"] == {"date": document["date"], "machine": document["machine"], **first}


@pytest.mark.parametrize("measured", [{}, {"measured": {"date": "2026-01-01"}}])
def test_what_an_older_result_says_of_its_rows_is_kept(measured: dict[str, object]):
    document = {"date": "2026-02-02", "machine": {"cores": 2}, "result": {"rows": [], **measured}}
    found = predictor.provenance_of(document)
    assert found == {"date": "2026-01-01" if measured else "2026-02-02", "machine": {"cores": 2}}
