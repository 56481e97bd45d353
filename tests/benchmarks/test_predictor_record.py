"""What the predictor's benchmark keeps beside its result."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import predictor, record
from space.cost import cost_of


def test_a_result_says_how_its_rows_were_measured_also_when_it_is_fitted_again(tmp_path: Path, monkeypatch):
    """The measuring is cut short: 31 networks would take minutes. Their latencies are their macs'."""
    seen = []

    def as_if_measured(configs, wanted, policy, core, batch):
        seen.append(core)
        rows = [{"config": config.to_dict(), "median_ms": cost_of(config).macs / 1e7} for config in configs[:wanted]]
        yield rows[:batch]
        yield rows

    monkeypatch.setattr(predictor, "measured", as_if_measured)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    words = ["predictor", "--networks", "31", "--repeats", "1"]
    monkeypatch.setattr(predictor, "peers", dict)
    monkeypatch.setattr(sys, "argv", [*words, "--policy", "quick"])
    predictor.main()
    path = tmp_path / "predictor_cifar_quick_0.json"
    assert list(tmp_path.iterdir()) == [path]  # what was saved while it measured is gone
    first = json.loads(path.read_text())["result"]["measured"]
    assert first == {"policy": "quick", "core": seen[0], "seed": 0, "batch": predictor.BATCH}
    monkeypatch.setattr(sys, "argv", [*words, "--from", str(path)])
    predictor.main()
    document = json.loads(path.read_text())
    assert document["result"]["measured"] == {"date": document["date"], "machine": document["machine"], **first}


def test_what_was_measured_until_then_is_kept_and_its_passes_count_as_one_network(tmp_path: Path, monkeypatch):
    """Cut short after two of three passes; what is fitted again from the file sees every network once."""

    def cut_short(configs, wanted, policy, core, batch):
        assert wanted is None
        assert len(configs) == 3 * 31
        rows = [
            {"config": config.to_dict(), "median_ms": cost_of(config).macs / 1e7 * (1 + n // 31), "steady": False}
            for n, config in enumerate(configs[:62])  # the second pass is twice as slow
        ]
        yield rows[:2]
        yield rows
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor, "measured", cut_short)
    monkeypatch.setattr(predictor, "peers", dict)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    words = ["predictor", "--networks", "31", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--policy", "quick", "--passes", "3"])
    with pytest.raises(KeyboardInterrupt):
        predictor.main()
    (part,) = tmp_path.iterdir()
    assert part.name == "predictor_cifar_quick_0_3_passes_part.json"
    monkeypatch.setattr(sys, "argv", [*words, "--from", str(part)])
    predictor.main()
    result = json.loads((tmp_path / "predictor_cifar_quick_0_3_passes.json").read_text())["result"]
    assert (result["networks"], len(result["rows"])) == (31, 62)
    merged = predictor.merged(result["rows"])
    first_pass = [row["median_ms"] for row in result["rows"][:31]]
    assert [row["median_ms"] for row in merged] == pytest.approx([1.5 * ms for ms in first_pass])
    assert predictor.merged(merged) == merged


@pytest.mark.parametrize("measured", [{}, {"measured": {"date": "2026-01-01"}}])
def test_what_an_older_result_says_of_its_rows_is_kept(measured: dict[str, object]):
    document = {"date": "2026-02-02", "machine": {"cores": 2}, "result": {"rows": [], **measured}}
    found = predictor.provenance_of(document)
    assert found == {"date": "2026-01-01" if measured else "2026-02-02", "machine": {"cores": 2}}
