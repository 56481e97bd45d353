"""A finished study on read-only media or in another user's folder: everything that only reads works on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.study import optuna_storage
from tests.command_line import ROOT
from tests.search.tiny_studies import CountingProbe, sqlite_url
from tests.search.trained_study import trained_study
from workers.file_names import LOG_FILE

READING = (
    ("status",),
    ("trials",),
    ("show", "0"),
    ("pareto",),
    ("pick", "--preview"),
    ("logs", "0"),
    ("export", "0", "--out", "{out}/model.onnx"),
    ("tensorboard", "--out", "{out}/runs"),
    ("report", "--out", "{out}/report.html"),
    ("plot", "front", "--out", "{out}/front.html"),
    ("doctor", "--dry-run"),
    ("devices", "list"),
    ("devices", "jobs"),
    ("init", "--trial", "0", "{out}/study.toml"),
)
WRITING = (("pick",), ("stop",), ("enqueue", "{}"), ("db", "upgrade"), ("delete", "tiny", "--yes"), ("doctor",))
PAGE = ("/", "/news", "/rows", "/trials.csv", "/chart-table/front", "/bundle/0.zip")
RUN = """
import json, sys
from typer.testing import CliRunner
import condensery
from dashboards.page import make_app

url, out = sys.argv[1:3]
codes = {}
for words in json.loads(sys.argv[3]):
    words = [word.replace("{out}", out) for word in words]
    ended = CliRunner().invoke(condensery.app, [*words, "--storage", url])
    error = ended.exception
    ours = getattr(error, "exit_code", repr(error))
    codes[" ".join(words[:2])] = ended.exit_code if error is None or isinstance(error, SystemExit) else ours
page = make_app(url).server.test_client()
for path in json.loads(sys.argv[4]):
    codes[path] = page.get(path).status_code
print(json.dumps(codes))
"""


def as_another() -> list[str]:
    """The words that start a command as a user whom permissions bind; root keeps its name, but not that right."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]


def codes(folder: Path, out: Path) -> dict[str, int]:
    """Run all commands and ask for the page's parts in one process; return exit codes and statuses."""
    lists = [json.dumps(values) for values in (READING + WRITING, PAGE)]
    words = [*as_another(), sys.executable, "-c", RUN, sqlite_url(folder), str(out), *lists]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(out)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """The folder of a finished study, in which nothing may be written any more."""
    folder = tmp_path / "study"
    folder.mkdir()
    store = trained_study(folder, CountingProbe())
    optuna_storage(sqlite_url(folder)).engine.dispose()
    store.engine.dispose()
    log = folder / "study-files" / "tiny" / "trial-00000" / LOG_FILE
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("trained")
    places = [folder, *folder.rglob("*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    yield folder
    for place in places:
        place.chmod(0o755)


@pytest.mark.slow(seconds=25)
def test_all_that_only_reads_works_and_all_that_writes_says_why_it_can_not(unwritable, tmp_path):
    before = sorted(unwritable.rglob("*"))
    (tmp_path / "out").mkdir()
    ended = codes(unwritable, tmp_path / "out")
    assert {words: code for words, code in ended.items() if code not in (0, 200)} == {
        "doctor --dry-run": 48,  # Optuna's tables know nothing of this study
        **dict.fromkeys(("pick", "stop", "enqueue {}", "db upgrade", "delete tiny", "doctor"), 33),
    }
    assert sorted(unwritable.rglob("*")) == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.onnx",
        "report.html",
        "front.html",
        "study.toml",
    }
