"""Trainings as CSV, and as runs of MLflow's and W&B's, where these packages are installed."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import condensery
from search.store.rows import TrialRow
from search.store.tables import curve
from search.travel.tracking import runs_of, write_mlflow, write_wandb
from space.errors import InvalidSettings
from tests.search.tiny_studies import CURVE_ROW, CountingProbe, sqlite_url
from tests.search.trained_study import trained_study

RUNNER = CliRunner()
TOP1 = "final/top1"
VALIDATION = "top1/validation"


@pytest.fixture
def url(tmp_path: Path) -> str:
    store = trained_study(tmp_path, CountingProbe())
    epochs = [{**CURVE_ROW, "trial_id": 1, "epoch": epoch, "val_top1": 0.25 * epoch} for epoch in (1, 2)]
    store.with_connection(lambda connection: connection.execute(sa.insert(curve), epochs))
    store.engine.dispose()
    return sqlite_url(tmp_path)


def invoke(*words: str, url: str) -> str:
    result = RUNNER.invoke(condensery.app, [*words, "--storage", url])
    assert result.exit_code == 0, result.output
    return result.stderr


def test_trials_are_written_as_csv_with_the_reports_columns(url: str, tmp_path: Path):
    invoke("trials", "tiny", "--csv", str(tmp_path / "trials.csv"), url=url)
    (row,) = csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text()))
    shown = json.loads(RUNNER.invoke(condensery.app, ["show", "0", "tiny", "--json", "--storage", url]).stdout)
    assert (row["number"], row["state"], float(row["top1"])) == ("0", "done", 0.5)
    assert float(row["latency_ms.host"]) == pytest.approx(shown["latency"]["median_ms"], rel=1e-5)
    assert row["latency_kind.host"] == "measured"
    assert json.loads(row["config"]) == shown["config"]


def test_a_run_is_a_training_that_ended_with_its_curve_and_what_it_is_judged_by(url: str):
    from search.store import reader
    from search.store.connection.database import open_for_reading

    engine = open_for_reading(url)
    (row,) = reader.read_trials(engine, reader.find_study(engine, "tiny").id)

    def curve_of(trial: TrialRow) -> list[dict[str, object]]:
        return reader.read_curve(engine, trial.id)

    (run,) = runs_of([row], curve_of)
    engine.dispose()
    assert (run.name, run.state, run.outcome[TOP1]) == ("trial-00000", "done", 0.5)
    assert [(epoch, values[VALIDATION]) for epoch, _, values in run.curve] == [(1, 0.25), (2, 0.5)]
    assert run.outcome["final/latency_ms/host/measured"] == pytest.approx(row.latency.median_ms if row.latency else 0)
    assert run.settings["config.groups"] == 2


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_package_that_is_not_there_is_named_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidSettings, match=rf"need the package {package}; pip install 'condensery\[{package}\]'"):
        write_mlflow("tiny", [], "sqlite://") if package == "mlflow" else write_wandb("tiny", [], tmp_path)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of the package's own
@pytest.mark.soak  # MLflow needs an older importlib_metadata than the development tools have
def test_mlflow_gets_a_run_once(url: str, tmp_path: Path):
    mlflow = pytest.importorskip("mlflow")
    to = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert "wrote 1 run into " in invoke("mlflow", "tiny", "--to", to, url=url)
    assert "wrote 0 runs" in invoke("mlflow", "tiny", "--to", to, url=url)
    client = mlflow.MlflowClient(tracking_uri=to)
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert (run.info.run_name, run.info.status) == ("trial-00000", "FINISHED")
    assert (run.data.metrics[TOP1], run.data.params["config.groups"]) == (0.5, "2")
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, VALIDATION)] == [
        (1, 0.25),
        (2, 0.5),
    ]
    refused = RUNNER.invoke(
        condensery.app, ["mlflow", "tiny", "--to", "http://me:T0KEN@127.0.0.1:bad", "--storage", url]
    )
    assert "T0KEN" not in str(refused.exception)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of the package's own
@pytest.mark.soak  # not among the development tools: an environment of its own is for it
def test_wandb_gets_an_offline_run_once(url: str, tmp_path: Path):
    pytest.importorskip("wandb")
    assert invoke("wandb", "tiny", "--out", str(tmp_path / "out"), url=url).startswith("wrote 1 run; ")
    assert "wrote 0 runs; 1 run was there already" in invoke("wandb", "tiny", "--out", str(tmp_path / "out"), url=url)
    ((file,),) = [list(folder.glob("*.wandb")) for folder in (tmp_path / "out" / "wandb").glob("offline-run-*-tiny-0")]
    content = file.read_bytes()
    assert b"trial-00000" in content
    assert TOP1.encode() in content
