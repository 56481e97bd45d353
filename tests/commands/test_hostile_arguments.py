"""Arguments of any size: a number no database holds, one of 5,000 digits, a config nested without end."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import condensery
from space.errors import CondenseryError
from tests.search.tiny_studies import CountingProbe, sqlite_url
from tests.search.trained_study import trained_study

NUMBERS = ["-1", str(2**31), str(2**63), "1" * 5000, "1e400", "nan", ""]
COMMANDS = [
    ["show", "N"],
    ["logs", "N"],
    ["export", "N", "--out", "/dev/null"],
    ["cancel", "N"],
    ["pick", "--preview", "--max-macs", "N"],
    ["pick", "--preview", "--max-latency-ms", "N"],
    ["report", "--out", "/dev/null", "--max-latency-ms", "host=N"],
    ["plot", "front", "--out", "{folder}/plot.html", "--budget", "N"],
    ["plot", "curves", "--out", "{folder}/plot.html", "--trial", "N"],
    ["init", "/nowhere/study.toml", "--study", "tiny", "--trial", "N"],
    ["devices", "jobs", "--last", "N"],
    ["devices", "fit", "none", "--networks", "N"],
    ["enqueue", "N"],
    ["enqueue", '{"stages": [N], "growth": [4], "dropout": N}'],
    ["enqueue", '{"stages": ' + "[" * 3000],
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("study")
    trained_study(folder, CountingProbe()).engine.dispose()
    return sqlite_url(folder)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words)[:40])
def test_no_number_ends_in_a_traceback(url, tmp_path, words):
    for number in NUMBERS:
        given = [word.replace("{folder}", str(tmp_path)).replace("N", number) for word in words]
        ended = CliRunner().invoke(condensery.app, [*given, "--storage", url]).exception
        assert ended is None or isinstance(ended, SystemExit | CondenseryError), (given[:3], repr(ended)[:300])


def test_a_long_error_is_shown_in_part(monkeypatch, capsys):
    monkeypatch.setattr(condensery, "open_streams", lambda: None)
    monkeypatch.setattr(condensery, "drop_output", lambda: None)
    monkeypatch.setattr("sys.argv", ["condensery", "enqueue", "[" + "1, " * 50_000 + "1]", "--storage", "sqlite:///x"])
    with pytest.raises(SystemExit):
        condensery.main()
    assert len(capsys.readouterr().err) < 2100
