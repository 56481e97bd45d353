"""Archives: a study goes into one file and comes back whole elsewhere; one that isn't sound leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import condensery
from search.store import device_tables, reader, tables
from search.store.connection.database import open_for_reading, open_for_writing
from search.store.tables import metadata
from search.store.whole_studies import read_rows, tables_of_studies
from search.study_file import settings_from
from search.travel.archive import Archived, archive
from search.travel.archive_form import MANIFEST
from search.travel.restore import restore
from space.errors import ArchiveUnreadable, FileInTheWay, StudyBusy, StudyExists
from tests.search.test_moved_studies import everything_in, finished_study, picked_in
from tests.search.tiny_studies import Bench, assert_consistent, sqlite_url
from workers.file_names import ONNX_FILE
from workers.metrics import Predictions
from workers.processes import process_name

RUNNER = CliRunner()
FILES = "study-files/tiny"  # of the original


def archived(url: str, out: Path, name: str = "tiny", **options: Any) -> Archived:
    engine = open_for_reading(url)
    try:
        row = reader.find_study(engine, name)
        return archive(engine, row, settings_from(row.settings, "the stored settings"), url, out, **options)
    finally:
        engine.dispose()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of one network, with predictions of its images, and its archive beside it."""
    folder = finished_study(tmp_path_factory.mktemp("original") / "study")
    engine = open_for_writing(sqlite_url(folder))
    predictions = Predictions.of(np.eye(2), np.arange(2)).to_bytes()
    with engine.begin() as connection:
        values = {"trial_id": 1, "split": "validation", "content": predictions}
        connection.execute(sa.insert(tables.predictions).values(values))
        remark = {"trial_id": 1, "starred": True, "text": "the harmless errors", "changed_at": 5.0}
        connection.execute(sa.insert(tables.note).values(remark))
    engine.dispose()
    archived(sqlite_url(folder), folder.parent / "tiny.zip")
    return folder


@pytest.fixture(scope="module")
def packed(original: Path) -> Path:
    return original.parent / "tiny.zip"


def contents(url: str, name: str = "tiny") -> dict[str, list[dict[str, Any]]]:
    """Every row of a study but for keys, which are the database's, and where its files and images are."""
    engine = open_for_reading(url)
    found: dict[str, list[dict[str, Any]]] = {}
    with engine.connect() as connection:
        key = reader.find_study(engine, name).id
        for table in tables_of_studies():
            keys = {"id", "study_id", "trial_id", "latency_id", "optuna_study_id", "optuna_trial_id", "settings"}
            rows = [dict(row) for row in read_rows(connection, table, key)]
            found[table.name] = [{key: value for key, value in row.items() if key not in keys} for row in rows]
    engine.dispose()
    return found


def test_a_restored_study_is_the_same_and_is_picked_exported_and_found_sound(
    original: Path, packed: Path, tmp_path: Path
):
    shutil.copytree(original / "images", tmp_path / "new" / "images")
    to = tmp_path / "new"
    result = RUNNER.invoke(condensery.app, ["restore", str(packed), "--to", str(to)])
    assert result.exit_code == 0
    assert "restored study 'tiny' (1 trial); its files are in" in result.stderr
    (to / "condensery.db").rename(to / "study.db")  # as `picked_in` calls it
    url = sqlite_url(to)
    before, after = contents(sqlite_url(original)), contents(url)
    assert before.pop(tables.trial.name)[0] | {"mirrored": True} == after.pop(tables.trial.name)[0]
    assert after == before
    picked = picked_in(to)
    assert picked.trial.latency is not None
    assert all(path.is_relative_to(to) for path in picked.files)
    options = ["tiny", "--storage", url]
    exported = ["export", "0", *options, "--out", str(tmp_path / "model.onnx")]
    assert RUNNER.invoke(condensery.app, exported).exit_code == 0
    assert (tmp_path / "model.onnx").read_bytes() == (original / FILES / "trial-00000" / ONNX_FILE).read_bytes()
    answer = json.loads(RUNNER.invoke(condensery.app, ["doctor", *options, "--dry-run", "--json"]).stdout)
    assert {finding["check"] for finding in answer["findings"]} <= {"curve", "predictions"}  # as of the original
    report = RUNNER.invoke(condensery.app, ["report", *options, "--out", str(tmp_path / "report.html")])
    assert report.exit_code == 0, report.output


def test_the_same_study_gives_the_same_archive_and_reading_it_changes_nothing(
    original: Path, packed: Path, tmp_path: Path
):
    before = everything_in(original)
    archived(sqlite_url(original), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    assert {name: before[name] for name in before if "study.db" not in name} == {
        name: digest for name, digest in everything_in(original).items() if "study.db" not in name
    }
    with zipfile.ZipFile(packed) as file:
        assert str(original.parent).encode() not in file.read(MANIFEST)


def test_every_table_travels_or_belongs_to_no_study():
    devices = {table.name for table in vars(device_tables).values() if isinstance(table, sa.Table)}
    stay = {tables.reference_latency.name, tables.device_fit.name}
    assert {table.name for table in tables_of_studies()} == set(metadata.tables) - devices - stay


# --- going on ---------------------------------------------------------------------------------------------------


def restored_bench(bench: Bench, folder: Path, url: str | None = None) -> Bench:
    """The bench's study, archived and restored in another folder or database."""
    out = folder / "tiny.zip"
    archived(bench.url, out)
    there = Bench(folder)
    there.url = url or there.url
    restored = restore(out, there.url)
    there.settings = bench.settings.model_copy(
        update={"study": bench.settings.study.model_copy(update={"files": str(restored.files.parent)})}
    )
    return there


def test_an_unfinished_study_goes_on_where_it_was_restored(tmp_path: Path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = Bench(tmp_path / "here", study__trainings=2)
    assert here.run() == "finished"
    there = restored_bench(here, tmp_path / "there")
    study = there.settings.study.model_copy(update={"trainings": 4})
    there.settings = there.settings.model_copy(update={"study": study})
    assert there.run(resume=True) == "finished"
    assert len(there.done()) == 4
    assert [row.identity for row in there.done()][:2] == [row.identity for row in here.done()]
    assert_consistent(there)
    here.close()
    there.close()


@pytest.mark.slow
def test_a_study_goes_to_postgresql_and_back(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("here", "there", "back"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "there")  # of a server the folder is nobody's: files are in the working directory
    here = Bench(tmp_path / "here", study__trainings=2)
    here.run()
    there = restored_bench(here, tmp_path / "there", postgres_url)
    back = restored_bench(there, tmp_path / "back")
    assert contents(back.url) == contents(here.url)
    assert back.run(resume=True) == "finished"
    assert_consistent(back)
    for bench in (here, there, back):
        bench.close()


# --- what is there stays ----------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_that_is_asked_for(original: Path, packed: Path, tmp_path: Path):
    with pytest.raises(FileInTheWay, match="stays as it is"):
        archived(sqlite_url(original), packed)
    url = sqlite_url(tmp_path)
    restore(packed, url)
    place = tmp_path / "study-files" / "tiny"
    (place / "mine.txt").write_text("kept")
    with pytest.raises(StudyExists):
        restore(packed, url)
    assert (place / "mine.txt").read_text() == "kept"
    assert restore(packed, url, name="other").files == place.with_name("other")
    assert contents(url, "other")["condensery_study"][0]["name"] == "other"
    restore(packed, url, force=True)
    assert not (place / "mine.txt").exists()
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(".restoring")] == []
    RUNNER.invoke(condensery.app, ["delete", "tiny", "--yes", "--keep-files", "--storage", url])
    with pytest.raises(FileInTheWay, match="under another --name"):
        restore(packed, url)
    assert len(contents(url, "other")["condensery_trial"]) == 1


def test_a_study_that_is_run_is_not_archived_and_not_replaced(original: Path, packed: Path, tmp_path: Path):
    url = sqlite_url(tmp_path)
    restore(packed, url)
    engine = open_for_writing(url)
    with engine.begin() as connection:
        now = {"controller": process_name(os.getppid()), "controller_seen_at": time.time()}
        connection.execute(sa.update(tables.study).values(now))
    engine.dispose()
    with pytest.raises(StudyBusy, match="stop it first"):
        archived(url, tmp_path / "new.zip")
    with pytest.raises(StudyBusy):
        restore(packed, url, force=True)
    assert (tmp_path / "study-files" / "tiny" / "trial-00000" / ONNX_FILE).is_file()
    assert not (tmp_path / "new.zip").exists()


# --- files that are not sound -----------------------------------------------------------------------------------


@contextmanager
def refused(folder: Path, message: str = "can't be restored") -> Iterator[None]:
    with pytest.raises(ArchiveUnreadable, match=message) as error:
        yield
    assert "\n" not in str(error.value)
    assert [path.name for path in folder.iterdir()] == []


def test_a_changed_byte_is_found_wherever_it_is(packed: Path, tmp_path: Path):
    content, changed = packed.read_bytes(), tmp_path / "changed.zip"
    (tmp_path / "to").mkdir()
    with zipfile.ZipFile(packed) as file:
        infos = [info for info in file.infolist() if info.file_size]  # of no bytes, none can change
    for info in infos:
        lengths = content[info.header_offset + 26 : info.header_offset + 30]  # of its name, and of what is behind it
        begin = info.header_offset + 30 + sum(int.from_bytes(lengths[at : at + 2], "little") for at in (0, 2))
        for place in {begin, begin + info.compress_size // 2}:
            changed.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
            with refused(tmp_path / "to"):
                restore(changed, sqlite_url(tmp_path / "to"))
    for size in (0, 10, len(content) // 2, len(content) - 1):
        changed.write_bytes(content[:size])
        with refused(tmp_path / "to"):
            restore(changed, sqlite_url(tmp_path / "to"))


def edited(packed: Path, out: Path, change: Callable[[dict[str, bytes]], None], manifest: bool = True) -> Path:
    """An archive whose members were changed; `manifest` whether its hashes and sizes follow."""
    with zipfile.ZipFile(packed) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    change(members)
    if manifest:
        document = json.loads(members[MANIFEST])
        document["members"] = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in members.items()
            if name != MANIFEST
        }
        members[MANIFEST] = json.dumps(document).encode()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out


def in_row(table: str, **values: Any) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        name = f"rows/condensery_{table}.jsonl"
        first, *others = members[name].splitlines()
        row = json.loads(first)
        for key, value in values.items():
            row[key] = value(row) if callable(value) else value
        members[name] = b"\n".join([json.dumps(row).encode(), *others])

    return change


def with_member(name: str, content: bytes = b"evil") -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: content})


def in_manifest(**values: Any) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({MANIFEST: json.dumps({**json.loads(members[MANIFEST]), **values}).encode()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_member("files/../../../evil"), "names a member 'files/../../../evil'"),
        (with_member("/etc/evil"), "names a member"),
        (with_member("files/..\\..\\evil"), "names a member"),
        (with_member("elsewhere/evil"), "names a member"),
        (with_member("files/zeros", bytes(60_000_000)), "it would unpack to 60,"),
        (in_row("artifact", path="../../evil"), "it names a file '../../evil' of a trial"),
        (in_row("artifact", path="/etc/passwd"), "it names a file"),
        (in_row("trial", evil=1), "condensery_trial has no column 'evil'"),
        (in_row("trial", number="0"), "condensery_trial.number must be int, but is str"),
        (in_row("trial", number=2**40), "must be a smaller number"),
        (in_row("trial", state="owned"), "'owned' is not a valid TrialState"),
        (in_row("trial", config="{}"), "a row of condensery_trial is none"),
        (in_row("trial", training="[]"), "a row of condensery_trial is none"),
        (in_row("trial", latency_id=99), "refers to row 99 of condensery_latency"),
        (in_row("latency", trial_id=99), "refers to row 99 of condensery_trial"),
        (in_row("latency", device="x" * 300), "must be at most 200 letters"),
        (in_row("predictions", content="AAAA"), "no archive, or a damaged one"),
        (in_row("study", settings=None), "its study has no settings"),
        (lambda members: members.update({"rows/condensery_study.jsonl": b""}), "must hold one study, but holds 0"),
        (lambda members: members.update({"rows/condensery_trial.jsonl": b"[[" * 9999}), "is none"),
        (in_manifest(revision="v9999", condensery="9.9"), "newer version, 9.9 .*; update Condensery"),
        (in_manifest(format=2), "its format is '2', and this version reads 1"),
        (in_manifest(study=3), "its manifest is none of an archive"),
        (lambda members: members.pop(MANIFEST), "so it is no archive of a study"),
    ],
)
def test_what_an_archive_must_not_hold_is_refused(
    packed: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], message: str
):
    has_manifest: list[bool] = []

    def noting(members: dict[str, bytes]) -> None:
        change(members)
        has_manifest.append(MANIFEST in members)

    with zipfile.ZipFile(packed) as file:
        noting({info.filename: file.read(info) for info in file.infolist()})
    hostile = edited(packed, tmp_path / "hostile.zip", change, manifest=has_manifest[0])
    (tmp_path / "to").mkdir()
    with refused(tmp_path / "to", message):
        restore(hostile, sqlite_url(tmp_path / "to"))
    assert not list(tmp_path.rglob("evil"))


def test_members_that_the_manifest_does_not_name_and_names_that_lead_out_are_refused(packed: Path, tmp_path: Path):
    (tmp_path / "to").mkdir()
    more = edited(packed, tmp_path / "more.zip", with_member("files/more"), manifest=False)
    with refused(tmp_path / "to", "its members are not those that its manifest names"):
        restore(more, sqlite_url(tmp_path / "to"))
    for name in ("../evil", "a/b", ".evil", ""):
        result = RUNNER.invoke(
            condensery.app, ["restore", str(packed), "--to", str(tmp_path / "to"), "--name", name, "--storage", "x"]
        )
        assert "study.name" in str(result.exception)
        assert [path.name for path in (tmp_path / "to").iterdir()] == []
    for place, message in ((tmp_path / "none.zip", "there is no such file"), (tmp_path, "it is a folder")):
        with refused(tmp_path / "to", message):
            restore(place, sqlite_url(tmp_path / "to"))


def test_an_archive_of_an_earlier_version_lacks_what_came_later(packed: Path, tmp_path: Path):
    def without_metrics(members: dict[str, bytes]) -> None:
        rows = [json.loads(line) for line in members["rows/condensery_trial.jsonl"].splitlines()]
        for row in rows:
            del row["macro_f1"]
        members["rows/condensery_trial.jsonl"] = b"\n".join(json.dumps(row).encode() for row in rows)
        del members["rows/condensery_predictions.jsonl"]

    restore(edited(packed, tmp_path / "earlier.zip", without_metrics), sqlite_url(tmp_path))
    assert contents(sqlite_url(tmp_path))["condensery_trial"][0]["top1"] == 0.5
