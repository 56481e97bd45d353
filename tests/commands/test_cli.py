"""The command line as a user meets it: a real search in real processes, then every verb on its study."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

import condensery
from commands.common import name_and_url
from commands.running import next_commands
from dashboards.budget.recorded import read_recorded
from dashboards.budget.table import BudgetTable
from dashboards.data.column_reader import read_columns
from dashboards.formats import digits_ms, percent
from search.budget import Budget
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.connection.printed_commands import DEFAULT, STORAGE
from search.study_file import load_settings
from space import errors
from tests.command_line import ROOT, run_command, run_here
from workers.latency import FakeProbe

pytestmark = pytest.mark.slow(seconds=1)
TERMINAL = {"COLUMNS": "100", "NO_COLOR": "1"}
QUICK = ("--set", "training.epochs=2", "--set", "engine.workers=1", "--set", "budget.max_macs=300_000")


def run(*words: str | Path, cwd: Path, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, for what trains, measures or asks."""
    return run_command(*words, cwd=cwd, timeout_s=timeout_s, environment=TERMINAL)


def here(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command in this process, for what reads."""
    return run_here(*words, cwd=cwd, environment=TERMINAL)


def error_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Check that a command failed as ours do: its own exit code, nothing on stdout, one line, no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line != "starting …"]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study of two trainings, made by the commands of the README."""
    folder = tmp_path_factory.mktemp("searched")
    assert run("init", "study.toml", "--preset", "digits", cwd=folder).returncode == 0
    done = run("launch", "study.toml", "--set", "study.trainings=2", *QUICK, cwd=folder, timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 trainings done" in done.stderr
    return folder


@pytest.fixture
def study(searched: Path, tmp_path: Path) -> Path:
    """A copy of the study to change; its files stay where they were recorded."""
    shutil.copytree(searched, tmp_path / "copy")
    return tmp_path / "copy"


PLAIN, NAMED, ELSEWHERE = (), ("study.name=X", "training.epochs=6"), ("study.storage=sqlite:///it's.db",)


@pytest.mark.parametrize(
    ("overrides", "storage", "resume", "look"),
    [
        (PLAIN, None, [], ["study.toml"]),
        (PLAIN, "sqlite:///a.db", ["--storage", "sqlite:///a.db"], ["study.toml", "--storage", "sqlite:///a.db"]),
        (
            NAMED,
            None,
            ["--set", "study.name=X", "--set", "training.epochs=6"],
            ["X"],
        ),
        (PLAIN, DEFAULT, ["--storage", DEFAULT], ["study.toml", "--storage", DEFAULT]),
        (ELSEWHERE, None, ["--storage", "sqlite:///it's.db"], ["digits", "--storage", "sqlite:///it's.db"]),
    ],
    ids=[
        "the file alone",
        "another database",
        "another name",
        "the default",
        "a database by --set",
    ],
)
def test_the_hints_after_a_launch_name_the_same_study(
    overrides: tuple[str, ...], storage: str | None, resume: list[str], look: list[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(STORAGE, raising=False)
    assert CliRunner().invoke(condensery.app, ["init", "study.toml"]).exit_code == 0
    settings = load_settings(Path("study.toml"), overrides)
    resume_hint, look_hint = next_commands(Path("study.toml"), settings, overrides, storage)
    assert shlex.split(resume_hint) == ["condensery", "launch", "study.toml", "--resume", *resume]
    assert shlex.split(look_hint) == ["condensery", "pareto", *look]
    options = ["--storage", resume[resume.index("--storage") + 1]] if "--storage" in resume else []
    name, url = name_and_url(look[0], look[2] if len(look) > 1 else None)
    assert (name, url) == (settings.study.name, options[1] if options else settings.storage)


def test_help_names_every_command() -> None:
    text = CliRunner().invoke(condensery.app, ["--help"]).stdout
    for command in condensery.app.registered_commands:
        assert command.callback is not None
        assert f" {command.callback.__name__} " in text
    assert " db " in text
    assert " devices " in text


def test_the_version_is_the_projects_and_costs_no_heavy_import(tmp_path: Path) -> None:
    code = "import condensery, sys; condensery.app(['--version'], standalone_mode=False); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    shell = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=shell, capture_output=True, text=True, check=True)
    version, imported = done.stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert version == f"condensery {project['version']}"
    assert not {"torch", "ray", "optuna", "dash", "sqlalchemy", "numpy"} & set(imported.split())


def test_it_is_a_module_and_wrong_use_exits_with_2(tmp_path: Path) -> None:
    shell = {**os.environ, "PYTHONPATH": str(ROOT)}
    nonsense = [sys.executable, "-m", "condensery", "nonsense"]  # as a shell starts it, with nothing imported
    assert subprocess.run(nonsense, cwd=tmp_path, env=shell, capture_output=True, check=False).returncode == 2
    assert here("nonsense", cwd=tmp_path).returncode == 2
    assert here("show", "--", "-1", cwd=tmp_path).returncode == 2


def test_init_writes_a_budget_that_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[Path] = []

    def slower_and_slower(file: Path) -> float:
        files.append(file)
        return 0.1 * len(files)

    monkeypatch.setattr("search.pricing.pricer.host_probe", lambda *how: FakeProbe(slower_and_slower))
    init = here("init", "study.toml", "--preset", "digits", "--measure-budget", cwd=tmp_path)
    assert init.returncode == 0, init.stderr
    budget = tomllib.loads((tmp_path / "study.toml").read_text())["budget"]
    assert len(files) == 12
    assert budget["max_latency_ms"] == pytest.approx(0.8, rel=0.05)  # about six of ten stay under it


def test_check_explains_the_file_and_writes_nothing(tmp_path: Path) -> None:
    assert here("init", "study.toml", cwd=tmp_path).returncode == 0
    before = sorted(path.name for path in tmp_path.rglob("*"))
    done = here("check", "study.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["space_size"] == 78_336
    assert found["estimated_seconds_in_all"] > 0
    assert all(sample["macs"] > 0 and sample["params"] > 0 for sample in found["samples"])
    assert "78,336 architectures" in here("check", "study.toml", "--no-timing", cwd=tmp_path).stdout
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_check_says_which_devices_are_lacking(tmp_path: Path) -> None:
    assert here("init", "study.toml", cwd=tmp_path).returncode == 0
    before = sorted(path.name for path in tmp_path.rglob("*"))
    done = here("check", "study.toml", "--no-timing", "--set", "latency.devices=['host', 'shelf']", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not ready to launch: latency.devices names 'shelf', but no device serves such a queue" in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_status_trials_and_show_agree_in_text_and_json(searched: Path) -> None:
    status = json.loads(here("status", "--json", cwd=searched).stdout)
    assert status["trials_by_state"]["done"] == 2
    assert "2 of 2 done" in here("status", "digits", cwd=searched).stdout
    assert "digits" in here("status", "study.toml", cwd=searched).stdout
    trials = json.loads(here("trials", "--json", cwd=searched).stdout)["trials"]
    done = [trial for trial in trials if trial["state"] == "done"]
    assert len(done) == 2
    assert all(trial["latency"]["kind"] == "measured" and trial["latency"]["policy"] == "quick" for trial in done)
    number = str(done[0]["number"])
    shown = json.loads(here("show", number, "--json", cwd=searched).stdout)
    assert [row["epoch"] for row in shown["curve"]] == [1, 2]
    assert shown["curve"][-1]["form"] == "deployed"
    assert shown["curve"][-1]["val_top1"] == shown["top1"]
    assert f"{done[0]['config_text']}" in here("show", number, cwd=searched).stdout
    assert "epoch 2" in here("logs", number, cwd=searched).stdout


def test_a_retrained_network_is_tested_in_place_of_the_one_it_was_chosen_as(study: Path) -> None:
    retrain = ("--retrain", "--retrain-epochs", "1")
    done = here("pick", "--max-latency-ms", "1000", *retrain, "--json", "--out", "retrained", cwd=study)
    assert done.returncode == 0, done.stderr
    picked = json.loads(done.stdout)
    name, _, number = picked["retrains"].rpartition("/")
    chosen = json.loads(here("show", number, name, "--json", cwd=study).stdout)
    assert chosen["test_top1"] is None
    assert picked["trial"]["config"] == chosen["config"]
    deploy = tomllib.loads((study / "retrained" / "deploy.toml").read_text())
    assert deploy["origin"]["retrains"] == picked["retrains"]
    assert "validation_top1" not in deploy["accuracy"]
    assert "it has learned from these images too" in (study / "retrained" / "MODEL_CARD.md").read_text()


def test_the_front_is_made_of_trained_networks(searched: Path) -> None:
    front = json.loads(here("pareto", "--json", cwd=searched).stdout)["front"]
    assert front
    assert {trial["state"] for trial in front} == {"done"}
    assert "latency" in here("pareto", cwd=searched).stdout


def test_pick_writes_a_bundle_that_runs_and_keeps_its_one_test_figure(study: Path) -> None:
    done = run("pick", "--max-latency-ms", "1000", "--out", "bundle", "--json", cwd=study)
    assert done.returncode == 0, done.stderr
    picked = json.loads(done.stdout)
    best = max(json.loads(here("trials", "--json", cwd=study).stdout)["trials"], key=lambda t: t["top1"] or 0)
    assert picked["trial"]["top1"] == best["top1"]
    assert picked["test_evaluations_of_study"] == 1
    deploy = tomllib.loads((study / "bundle" / "deploy.toml").read_text())
    assert deploy["accuracy"]["test_top1"] == picked["test_top1"]
    assert f"{picked['test_top1']:.2%}" in (study / "bundle" / "MODEL_CARD.md").read_text()
    session = onnxruntime.InferenceSession(study / "bundle" / deploy["model"]["file"])
    rules = deploy["preprocessing"]
    images = np.zeros((5, len(rules["channel_order"]), *rules["size"]), dtype=rules["dtype"])
    (logits,) = session.run([deploy["model"]["output"]], {deploy["model"]["input"]: images})
    assert logits.shape == (5, len(deploy["classes"]["names"]))
    refused = here("pick", "--max-latency-ms", "1000", "--out", "bundle", cwd=study)
    assert (refused.returncode, refused.stderr.count("\n")) == (errors.FileInTheWay.exit_code, 1)
    assert figures_on_the_page(study, picked["trial"]["number"]) == figures_in_the_bundle(study / "bundle")
    again = here("pick", "--max-latency-ms", "1000", "--out", "bundle", "--force", cwd=study)
    assert again.returncode == 0, again.stderr
    assert f"{picked['test_top1']:.2%}" in again.stdout
    with sqlite3.connect(study / "condensery.db") as connection:
        assert connection.execute("select count(*) from condensery_trial where test_top1 is not null").fetchone() == (
            1,
        )
    connection.close()


def figures_on_the_page(study: Path, number: int) -> tuple[str, str, tuple[str, ...]]:
    engine = open_for_reading(f"sqlite:///{study / 'condensery.db'}")
    columns = read_columns(engine, reader.list_studies(engine)[0].name)
    table = BudgetTable.of(columns, Budget(1000.0), partial(read_recorded, engine, columns.study))
    engine.dispose()
    offer = table.offers[table.answer({"host": 1000.0}).best or 0]
    assert offer.number == number
    assert offer.badges[:2] == ("verified on device", "tested")
    assert offer.file.endswith("B")
    return offer.figures[0]["median"], offer.tested["value"], (offer.figures[0]["interval"], offer.figures[0]["p90"])


def figures_in_the_bundle(bundle: Path) -> tuple[str, str, tuple[str, ...]]:
    deploy, card = tomllib.loads((bundle / "deploy.toml").read_text()), (bundle / "MODEL_CARD.md").read_text()
    latency, (low, high) = deploy["latency"], deploy["latency"]["interval_95_ms"]
    assert f"{latency['median_ms']:.4g} ms (95 % interval {low:.4g} to {high:.4g}, p90 {latency['p90_ms']:.4g})" in card
    assert "dense layers of each stage" in card
    median, p90 = digits_ms(latency["median_ms"], 4), digits_ms(latency["p90_ms"], 4)
    interval = f"[{digits_ms(low, 4)}, {digits_ms(high, 4)}]"
    return f"{median} ms", percent(deploy["accuracy"]["test_top1"]), (interval, p90)


def test_pick_previews_without_touching_the_database(study: Path) -> None:
    before = json.loads(here("trials", "--json", cwd=study).stdout)
    done = here("pick", "--preview", "--max-latency-ms", "1000", cwd=study)
    assert done.returncode == 0
    fastest = min(trial["latency"]["median_ms"] for trial in before["trials"] if trial["state"] == "done")
    inside = ("pick", "--preview", "--json", "--max-latency-ms", str(fastest))
    error_line(here(*inside, cwd=study), errors.NothingFeasible.exit_code)  # its upper end is above its median
    by_median = json.loads(here(*inside, "--latency-statistic", "median", cwd=study).stdout)
    assert [trial["latency"]["median_ms"] for trial in by_median["trials"]] == [fastest]
    assert json.loads(here("trials", "--json", cwd=study).stdout) == before


def test_pick_refuses_what_no_network_can_do_and_a_folder_that_is_no_bundle(study: Path) -> None:
    line = error_line(here("pick", "--max-latency-ms", "0.000001", cwd=study), errors.NothingFeasible.exit_code)
    assert "smallest feasible latency" in line
    (study / "mine").mkdir()
    (study / "mine" / "letter.txt").write_text("keep me")
    error_line(here("pick", "--max-latency-ms", "1000", "--out", "mine", cwd=study), errors.ReadOnlyFolder.exit_code)
    assert (study / "mine" / "letter.txt").read_text() == "keep me"


def test_export_and_report_write_their_files(study: Path) -> None:
    number = json.loads(here("pareto", "--json", cwd=study).stdout)["front"][0]["number"]
    assert here("export", str(number), "--out", "out/net.onnx", cwd=study).returncode == 0
    onnxruntime.InferenceSession(study / "out" / "net.onnx")
    assert here("report", "--out", "page.html", cwd=study).returncode == 0
    assert "<html" in (study / "page.html").read_text(encoding="utf-8")[:200]


def test_tensorboard_writes_a_run_for_each_trial_and_removes_nothing_else(study: Path) -> None:
    written = here("tensorboard", "study.toml", cwd=study)
    assert written.stdout == "wrote 2 runs; see them with: tensorboard --logdir tensorboard\n"
    folder = study / "runs" / "digits"  # each study has its own, so several may be written below the same one
    (folder / "trial-00000").mkdir(parents=True)
    (folder / "trial-00000" / "network.safetensors").write_text("someone's")
    for _ in range(2):
        assert here("tensorboard", "study.toml", "--out", "runs", cwd=study).returncode == 0
    assert (folder / "trial-00000" / "network.safetensors").read_text() == "someone's"
    assert len(list((study / "runs").rglob("events.*"))) == len(list(folder.glob("trial-*/events.*"))) == 2
    (study / "taken").write_text("a file")
    refused = here("tensorboard", "study.toml", "--out", "taken", cwd=study)
    assert "taken" in error_line(refused, 61)


def test_a_search_in_which_nothing_could_be_trained_fails(tmp_path: Path) -> None:
    space = ["groups=[1]", "condense_factor=[1]", "bottleneck=[1]", "num_stages=1", "layers=[1]", "growth=[4]"]
    changes = ["study.trainings=1", "engine.workers=1", "limits.trial_time_s=1e-9", *(f"space.{s}" for s in space)]
    assert here("init", "study.toml", "--preset", "digits", cwd=tmp_path).returncode == 0
    done = here("launch", "study.toml", *(word for change in changes for word in ("--set", change)), cwd=tmp_path)
    assert done.returncode == 52, done.stderr
    assert "none could be trained; see why: condensery trials" in done.stderr.splitlines()[-1]
    assert "passed its time limit" in done.stderr


def test_a_damaged_network_is_never_handed_out(study: Path) -> None:
    number = json.loads(here("pareto", "--json", cwd=study).stdout)["front"][0]["number"]
    forged = "0" * 64
    with sqlite3.connect(study / "condensery.db") as connection:
        connection.execute("update condensery_artifact set sha256 = ?", (forged,))
    connection.close()
    line = error_line(run("export", str(number), "--out", "x.onnx", cwd=study), errors.CheckpointCorrupt.exit_code)
    assert "SHA-256" in line
    assert not (study / "x.onnx").exists()


def test_an_enqueued_config_is_trained_next_and_the_study_goes_on_by_resume(study: Path) -> None:
    wanted = {"stages": [1, 1], "growth": [4, 4], "groups": 1, "condense_factor": 2, "bottleneck": 1}
    assert here("enqueue", json.dumps(wanted), cwd=study).returncode == 0
    launch = ("launch", "study.toml", *QUICK)
    error_line(here(*launch, cwd=study), errors.StudyExists.exit_code)
    done = here(*launch, "--set", "study.trainings=2", "--resume", cwd=study)
    assert done.returncode == 0, done.stderr
    trials = json.loads(here("trials", "--json", cwd=study).stdout)["trials"]
    (enqueued,) = [trial for trial in trials if trial["origin"] == "enqueued"]
    assert enqueued["state"] == "done"
    assert enqueued["config"]["stages"] == [1, 1]
    assert json.loads(here("status", "--json", cwd=study).stdout)["trials_by_state"]["done"] == 3


def test_delete_removes_rows_and_asks_first(study: Path) -> None:
    assert run("delete", "digits", cwd=study).returncode != 0  # no answer is no
    assert here("delete", "digits", "--yes", "--keep-files", cwd=study).returncode == 0
    error_line(here("trials", "digits", cwd=study), errors.StudyNotFound.exit_code)
    with sqlite3.connect(study / "condensery.db") as connection:
        for table in ("condensery_trial", "condensery_curve", "condensery_latency", "trials", "studies"):
            assert connection.execute(f"select count(*) from {table}").fetchone() == (0,)
    connection.close()


def test_deleting_a_study_whose_folder_is_a_symbolic_link_leaves_what_it_leads_to(study: Path) -> None:
    files = study / "condensery-files/digits"
    elsewhere = study / "elsewhere"
    files.rename(elsewhere)
    files.symlink_to(elsewhere)
    (elsewhere / "mine.txt").write_text("mine")
    done = here("delete", "digits", "--yes", cwd=study)
    assert (done.returncode, str(elsewhere) in done.stderr) == (0, True)
    assert (elsewhere / "mine.txt").read_text() == "mine"
    assert not files.is_symlink()


def test_the_database_reports_its_version(study: Path) -> None:
    done = here("db", "upgrade", cwd=study)
    assert done.returncode == 0
    assert "nothing to do" in done.stderr


def test_wrong_names_and_numbers_are_one_line_each(searched: Path, tmp_path: Path) -> None:
    assert "Did you mean 'digits'" in error_line(here("trials", "digitz", cwd=searched), errors.StudyNotFound.exit_code)
    assert "trials 0 to" in error_line(here("show", "999", cwd=searched), errors.TrialNotFound.exit_code)
    error_line(here("cancel", "0", cwd=searched), errors.TrialNotReady.exit_code)
    error_line(here("enqueue", '{"depth": 1}', cwd=searched), errors.InvalidConfig.exit_code)
    error_line(here("enqueue", "no-such-file", cwd=searched), errors.InvalidSettings.exit_code)
    error_line(here("status", cwd=tmp_path), errors.DatabaseUnavailable.exit_code)
    assert "is not running" in here("stop", cwd=searched).stderr


@pytest.mark.parametrize(
    ("override", "code", "says"),
    [
        ("training.epoch=3", 10, "Did you mean `epochs`?"),
        ("studdy.seed=3", 10, "Did you mean `study`?"),
        ("study.trainings=0", 10, "greater than or equal to 1"),
        ("format=9", 11, "format = 1"),
        ("space.growth=[3, 5]", 12, "lcm"),
        ("data.dataset=digitz", 20, "digits"),
        ("data.dataset=imagefolder:/no/such/folder", 21, "/no/such/folder"),
        ("budget.max_macs=10", 51, "smallest found has"),
    ],
)
def test_a_mistake_in_the_study_file_is_one_line_with_its_own_code_and_records_nothing(
    tmp_path: Path, override: str, code: int, says: str
) -> None:
    assert here("init", "study.toml", cwd=tmp_path).returncode == 0
    assert says in error_line(here("launch", "study.toml", "--set", override, cwd=tmp_path), code)
    assert not (tmp_path / "condensery.db").exists()


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    assert here("init", "study.toml", cwd=tmp_path).returncode == 0
    (tmp_path / "notes.db").write_text("not a database")
    launch = ("launch", "study.toml", "--storage")
    error_line(here(*launch, "sqlite:///notes.db", cwd=tmp_path), errors.NotOurDatabase.exit_code)
    assert (tmp_path / "notes.db").read_text() == "not a database"
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("create table cats (name text)")
    connection.close()
    error_line(here(*launch, "sqlite:///other.db", cwd=tmp_path), errors.NotOurDatabase.exit_code)
    line = error_line(here(*launch, "nonsense://", cwd=tmp_path), errors.DatabaseUnavailable.exit_code)
    assert "sqlite:///condensery.db" in line


@pytest.mark.parametrize(
    ("options", "serve"),
    [
        ((), "condensery devices serve"),
        (("--hub", "http://127.0.0.1:8791"), "condensery devices serve --port 8791"),
        (("--hub", "http://pi.local:8700"), "condensery devices serve --host 0.0.0.0"),
        (
            ("--hub", "https://pi.local:8700"),
            "condensery devices serve --host 0.0.0.0 --cert cert.pem --key key.pem",
        ),
    ],
)
def test_the_commands_that_adding_a_device_prints_fit_together(tmp_path: Path, options: tuple[str, ...], serve: str):
    done = here("devices", "add", "pi5", *options, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].strip() == serve


def test_adding_a_device_says_where_the_printed_commands_work(tmp_path: Path):
    printed = here("devices", "add", "pi5", cwd=tmp_path).stdout
    assert "These commands reach this machine only." in printed
    assert re.search(r"`--hub http://(THIS-HOST|[\d.]+):8700`", printed)
    assert "`condensery devices serve --host 0.0.0.0`" in printed
    printed = here("devices", "add", "pi6", "--hub", "http://pi.local:8700", cwd=tmp_path).stdout
    assert "this machine only" not in printed
    printed = here("devices", "add", "pi7", "--hub", "https://pi.local:8700", cwd=tmp_path).stdout
    hint = "add `--cacert ca.pem` to the first command, `--cafile ca.pem` to the last"
    assert hint in " ".join(printed.split())


def test_devices_asked_for_before_any_was_added_are_told_how_to_add_one(tmp_path: Path):
    for verb in ("list", "jobs"):
        line = error_line(here("devices", verb, cwd=tmp_path), errors.DatabaseUnavailable.exit_code)
        assert "`condensery devices add NAME` makes it" in line
        assert not (tmp_path / "condensery.db").exists()


def test_check_refuses_a_virtual_device_without_a_profile_and_names_those_there_are(tmp_path: Path):
    assert here("init", "study.toml", cwd=tmp_path).returncode == 0
    options = ("--no-timing", "--set", 'latency.devices=["virtual:nope"]', "--set", "budget.max_latency_ms=3")
    line = error_line(here("check", "study.toml", *options, cwd=tmp_path), errors.InvalidSettings.exit_code)
    assert "no profile is called nope; there are raspberry-pi-5" in line


def test_a_profile_that_could_not_be_written_is_refused_before_anything_is_measured(tmp_path: Path):
    for out, why in (("MyPi5.json", "'MyPi5' isn't"), ("study.toml/pi5.json", "can't be written")):
        (tmp_path / "study.toml").touch()
        done = here("devices", "calibrate", "pi5", "--networks", "16", "--out", out, cwd=tmp_path)
        assert why in error_line(done, done.returncode)
    assert not (tmp_path / "condensery.db").exists()


def test_a_hub_that_is_no_address_is_refused_before_anything_is_registered(tmp_path: Path):
    for hub in ("ftp://pi.local", "pi.local:8700", "http://a; rm -rf", "http://pi:port"):
        line = error_line(here("devices", "add", "pi5", "--hub", hub, cwd=tmp_path), errors.InvalidSettings.exit_code)
        assert "--hub must be http:// or https://" in line
    assert not (tmp_path / "condensery.db").exists()
