"""The bundle to look at: made of what is recorded, by reading alone."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from search.budget import Budget
from search.pricing.pricer import Target
from search.results.bundle.facts import pick_command
from search.results.bundle.preview import bundle_name, preview_bundle
from search.results.picking.picked import pick
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.store import StudyStore
from search.store.tables import artifact, attempt, metadata
from space.errors import CheckpointCorrupt, TrialNotReady
from tests.search.tiny_studies import CountingProbe, sqlite_url, tiny_settings
from tests.search.trained_study import files_of_trial, trained_study
from workers.file_names import NETWORK_FILE, ONNX_FILE
from workers.files import file_hash

ROOT = Path(__file__).parents[3]
FILES = {"MODEL_CARD.md", "deploy.toml", "infer.py", "SHA256SUMS", "model.onnx", "network.safetensors"}
HOSTILE = '<script>alert("1")</script>`|\n# "] x = 1' + "é" * 10_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StudyStore]:
    store = trained_study(tmp_path, CountingProbe())
    yield store
    store.engine.dispose()


def previewed(store: StudyStore, budget: Budget = Budget(2.0)) -> dict[str, bytes]:  # noqa: B008  frozen
    (study,), (row,) = reader.list_studies(store.engine), store.trials()
    content = preview_bundle(store.engine, study, row, budget)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def deploy_of(files: dict[str, bytes]) -> dict[str, Any]:
    return tomllib.loads(files["deploy.toml"].decode())


def everything(engine: sa.Engine) -> dict[str, list[tuple[Any, ...]]]:
    with engine.connect() as connection:
        return {
            name: [tuple(row) for row in connection.execute(sa.select(table))]
            for name, table in metadata.tables.items()
        }


def test_the_preview_holds_the_recorded_files_and_says_what_was_not_done(store: StudyStore, tmp_path: Path):
    files = previewed(store)
    assert files.keys() == FILES
    for name in (ONNX_FILE, NETWORK_FILE):
        assert files[name] == (files_of_trial(tmp_path) / name).read_bytes()
    card, deploy = files["MODEL_CARD.md"].decode(), deploy_of(files)
    pick = f"condensery pick tiny --storage sqlite:///{tmp_path / 'study.db'} --max-latency-ms 2"
    todo = f"not verified on the device after training, not tested: run `{pick}"
    assert todo in card
    assert "| test top-1 | not tested |" in card
    assert "| latency, measured before training, quick | " in card
    assert "one of\n1 trained networks, inside the budget (2 ms)" in card
    checks = {"verified": False, "verified_by": "", "tested": False, "not_done": f"{todo} --out bundle`"}
    assert deploy["checks"] == checks
    assert "test_top1" not in deploy["accuracy"]
    assert deploy["latency"]["verified"] is False
    assert deploy["model"]["sha256"] == file_hash(files_of_trial(tmp_path) / ONNX_FILE)


def test_a_network_that_was_picked_before_says_what_was_seen_then(store: StudyStore, tmp_path: Path):
    (study,) = reader.list_studies(store.engine)
    targets = (Target("host", CountingProbe()),)
    picked = pick(store, study, tiny_settings().search_budget(), targets, tmp_path / "images")
    files = previewed(store)
    card, deploy = files["MODEL_CARD.md"].decode(), deploy_of(files)
    assert deploy["checks"] == {"verified": True, "verified_by": "measured on fake", "tested": True, "not_done": ""}
    assert deploy["accuracy"]["test_top1"] == picked.test_top1
    assert deploy["latency"]["median_ms"] == picked.verified.median_ms
    assert f"{picked.test_top1:.2%}" in card
    assert "not verified" not in card
    assert "the only network of this study" in card


def test_a_preview_is_made_through_a_read_only_database_and_changes_nothing(store: StudyStore, tmp_path: Path):
    before = everything(store.engine)
    read_only = open_for_reading(sqlite_url(tmp_path))
    (study,) = reader.list_studies(read_only)
    first, second = (
        preview_bundle(read_only, study, reader.find_trial(read_only, study, 0), Budget()) for _ in range(2)
    )
    read_only.dispose()
    assert first == second
    assert everything(store.engine) == before


def test_a_preview_loads_no_torch(store: StudyStore, tmp_path: Path):
    script = f"""
import sys
from search.results.bundle.preview import preview_bundle
from search.budget import Budget
from search.store import reader
from search.store.connection.database import open_for_reading
engine = open_for_reading({sqlite_url(tmp_path)!r})
(study,) = reader.list_studies(engine)
assert len(preview_bundle(engine, study, reader.find_trial(engine, study, 0), Budget())) > 1000
print(*sorted({{"torch", "onnx", "onnxruntime", "optuna"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_budget_that_the_network_exceeds_is_said_to_be_exceeded(store: StudyStore):
    card = previewed(store, Budget(0.5))["MODEL_CARD.md"].decode()
    assert "not inside the budget (0.5 ms): latency" in card


def test_a_file_that_is_another_is_refused(store: StudyStore, tmp_path: Path):
    (files_of_trial(tmp_path) / ONNX_FILE).write_bytes(b"something else")
    with pytest.raises(CheckpointCorrupt, match="not the file that was recorded"):
        previewed(store)


def test_a_file_that_was_removed_says_by_what(store: StudyStore, tmp_path: Path):
    (files_of_trial(tmp_path) / NETWORK_FILE).unlink()
    with pytest.raises(CheckpointCorrupt, match=r"is gone \(moved or deleted\)"):
        previewed(store)
    with store.engine.begin() as connection:
        connection.execute(sa.update(artifact).values(removed=True))
    with pytest.raises(CheckpointCorrupt, match="removed by the retention rule"):
        previewed(store)


def test_a_file_that_another_machine_recorded_names_that_machine(store: StudyStore, tmp_path: Path):
    (files_of_trial(tmp_path) / NETWORK_FILE).unlink()
    owner = {"trial_id": store.trials()[0].id, "attempt": 1, "owner": "big-box:77@5", "started_at": 0.0}
    with store.engine.begin() as connection:
        connection.execute(sa.insert(attempt), [{**owner, "heartbeat_at": 0.0, "epochs": 1}])
    with pytest.raises(CheckpointCorrupt, match="on another machine: it was recorded on big-box"):
        previewed(store)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"state": "failed", "reason": "the loss became nan"}, "trial 0 is failed \\(the loss became nan\\)"),
        ({"state": "running"}, "trial 0 is running; only a done trial"),
        ({"state": "duplicate", "duplicate_of": 7}, "repeats trial 7, which has the network"),
    ],
)
def test_a_trial_without_a_network_is_refused(store: StudyStore, changed: dict[str, Any], why: str):
    (study,), (row,) = reader.list_studies(store.engine), store.trials()
    with pytest.raises(TrialNotReady, match=why):
        preview_bundle(store.engine, study, replace(row, **changed), Budget())


def test_hostile_names_stay_text(store: StudyStore):
    (study,), (row,) = reader.list_studies(store.engine), store.trials()
    study = replace(study, name=HOSTILE, data_info={"dataset": HOSTILE, "class_names": [HOSTILE], "test_images": "<b>"})
    content = preview_bundle(store.engine, study, row, Budget(5.0, elsewhere_ms={HOSTILE: 1.0}))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        card, deploy = (
            archive.read(f"{bundle_name(study, row)}/{name}").decode() for name in ("MODEL_CARD.md", "deploy.toml")
        )
    assert {name.count("/") for name in names} == {1}
    assert all(name.isascii() and len(name) < 120 for name in names)
    parsed = tomllib.loads(deploy)
    assert parsed["origin"]["study"] == HOSTILE
    assert parsed["budget"]["max_latency_ms_on"] == {HOSTILE: 1.0}
    assert "<script" not in card
    assert "<b>" not in card
    assert max(map(len, card.splitlines())) < 2000
    assert sum(line.startswith("# ") for line in card.splitlines()) == 1


def test_the_command_to_pick_is_one_that_a_shell_takes_as_it_is():
    budget = Budget(2.5, max_macs=1e6, max_params=20_000, elsewhere_ms={"my pi": 3.0})
    assert pick_command("it's", budget) == (
        "condensery pick 'it'\"'\"'s' --max-latency-ms 2.5 --max-latency-ms 'my pi=3' --max-macs 1000000 "
        "--max-params 20000 --out bundle"
    )
