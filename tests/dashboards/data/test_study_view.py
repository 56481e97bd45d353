"""What a dashboard loads: trials, front, and a revision that moves with them; and what the package imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dashboards.data.column_reader import read_columns
from dashboards.data.revision import load_revision
from search.results.pareto import front_of_study
from search.store.connection.database import open_for_reading
from space.errors import StudyNotFound
from tests.dashboards.studies import Study, lively


def test_an_empty_study_has_rows_and_front_empty(tmp_path: Path) -> None:
    made = Study(tmp_path)
    assert len(read_columns(made.engine, made.name)) == 0
    assert front_of_study(made.engine, made.id) == []


def test_the_front_is_fastest_first(tmp_path: Path) -> None:
    made = lively(tmp_path)
    rows = front_of_study(made.engine, made.id)
    medians = [row.latency.median_ms for row in rows if row.latency is not None]
    assert len(medians) == len(rows) > 3
    assert medians == sorted(medians)


def test_the_revision_changes_with_every_step_and_with_nothing_else(tmp_path: Path) -> None:
    made = Study(tmp_path)
    seen = [load_revision(made.engine, made.id)]

    def step() -> None:
        revision = load_revision(made.engine, made.id)
        assert revision not in seen
        assert load_revision(made.engine, made.id) == revision
        seen.append(revision)

    number = made.asked()
    step()
    made.store.add_latency(number, made.measurement(number, 0.3))
    step()
    made.store.set_queued(number)
    step()
    made.store.set_running(number, 1)
    step()
    made.add_curve(number, 0.9, epochs=1)
    step()
    made.store.request_cancel(number)
    step()
    made.store.finish(number, "done", top1=0.9)
    step()
    made.store.add_artifacts(number, {"model.onnx": ("/x", "0")})
    step()
    made.store.mark_removed(number)
    step()
    made.store.set_test_top1(number, 0.8)
    step()
    made.store.add_latency(number, made.measurement(number, 0.31, purpose="verify"))
    step()
    made.store.enqueue(made.row(number).config, {})
    step()
    made.store.claim()
    step()
    assert made.store.request_stop() == made.store.me
    step()
    made.store.set_data_info({"dataset": "digits"})
    step()


def test_a_read_only_engine_is_enough(tmp_path: Path) -> None:
    made = lively(tmp_path)
    made.engine.dispose()
    engine = open_for_reading(f"sqlite:///{tmp_path / 'study.db'}")
    assert len(read_columns(engine, made.name)) == 32


def test_an_unknown_study_is_refused(tmp_path: Path) -> None:
    made = Study(tmp_path)
    with pytest.raises(StudyNotFound, match="digits-small"):
        read_columns(made.engine, "digit-small")


def imported_by(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print(' '.join(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_reading_at_the_terminal_imports_nothing_heavy() -> None:
    loaded = imported_by(
        "dashboards.terminal.study_tables",
        "dashboards.terminal.trial_tables",
        "dashboards.terminal.live_view",
        "dashboards.terminal.documents",
        "dashboards.data.live_study",
    )
    assert not loaded & {"torch", "optuna", "ray", "plotly", "onnxruntime"}


def test_the_report_is_imported_without_torch_optuna_or_ray() -> None:
    assert not imported_by("dashboards.report.report", "dashboards.panels") & {
        "torch",
        "optuna",
        "ray",
        "plotly",
        "onnxruntime",
    }
