"""The agent's one file: the same bytes everywhere, complete in itself, and in place whenever it is needed."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from workers.latency import agent
from workers.latency.agent.__main__ import main
from workers.latency.agent_file import agent_bytes, agent_command, agent_path, agent_sha256

ROOT = Path(__file__).parents[3]
SOURCES = Path(agent.__file__).parent
PRINT_HASH = "from workers.latency.agent_file import agent_sha256; print(agent_sha256())"


@pytest.fixture
def cache(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CONDENSERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_same_sources_give_the_same_bytes_wherever_and_whenever_they_lie(tmp_path):
    for package in ("space", "workers"):
        shutil.copytree(ROOT / package, tmp_path / package, copy_function=shutil.copyfile)  # with other times
    left_over = tmp_path / "workers/latency/agent/__pycache__/other.cpython-39.pyc"
    left_over.parent.mkdir(exist_ok=True)
    left_over.write_bytes(b"bytecode of another Python")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-P", "-c", f"import os; os.umask(0o077); {PRINT_HASH}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == agent_sha256() == hashlib.sha256(agent_bytes()).hexdigest()


def test_a_changed_source_gives_another_hash(tmp_path):
    for package in ("space", "workers"):
        shutil.copytree(ROOT / package, tmp_path / package)
    with (tmp_path / "workers/latency/agent/timing.py").open("a") as file:
        file.write("# another line\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-P", "-c", PRINT_HASH]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() != agent_sha256()


def test_it_holds_every_source_once_uncompressed_and_with_fixed_times_and_modes():
    assert agent_bytes().startswith(b"#!/usr/bin/env python3\n")
    entries = zipfile.ZipFile(io.BytesIO(agent_bytes())).infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    packages = ["__main__.py", "workers/__init__.py", "workers/latency/__init__.py"]
    sources = [
        f"workers/latency/agent/{path.relative_to(SOURCES)}"
        for path in SOURCES.rglob("*.[cp]*")
        if path.suffix in (".c", ".py")
    ]
    assert names == sorted([*packages, *sources])
    for entry in entries:
        assert (entry.date_time, entry.create_system) == ((1980, 1, 1, 0, 0, 0), 3)
        assert (entry.compress_type, entry.external_attr >> 16) == (zipfile.ZIP_STORED, 0o644)


def test_its_modules_come_from_the_file_alone(tmp_path):
    """Nothing of the project is on the path, and another `workers` beside the file is not imported."""
    file = tmp_path / "device" / "agent.pyz"
    (file.parent / "workers").mkdir(parents=True)
    (file.parent / "workers" / "__init__.py").write_text("raise SystemExit('another package')\n")
    file.write_bytes(agent_bytes())
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-v", str(file), "--help"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert {"measure", "count", "run"} <= set(done.stdout.replace(",", " ").strip().replace("{", " ").split())
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("import 'workers.latency.agent.timing'"))
    assert f'zipimporter object "{file}' in line
    assert str(ROOT / "workers") not in done.stderr


def test_a_measuring_process_loads_nothing_of_what_serves_a_hub():
    done = subprocess.run([*agent_command(), "measure", "--help"], capture_output=True, text=True, check=True)
    assert "--policy" in done.stdout
    code = "import sys; import workers.latency.agent.__main__; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(agent_path())}
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    modules = set(loaded.stdout.split())
    assert "workers.latency.agent.timing" in modules
    assert not {name for name in modules if name.startswith(("workers.latency.agent.serving", "pydantic", "ssl"))}


def test_it_is_written_once_under_its_hash_and_again_when_it_was_damaged(cache: Path):
    path = agent_path()
    assert path == cache / "agent" / agent_sha256()[:16] / "agent.pyz"
    first = path.stat().st_mtime_ns
    assert agent_path().stat().st_mtime_ns == first
    path.write_bytes(agent_bytes()[:1000])
    assert agent_path().read_bytes() == agent_bytes()
    path.unlink()
    assert agent_path().read_bytes() == agent_bytes()


def test_without_a_cache_that_can_be_written_it_lies_in_a_folder_of_the_process(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONDENSERY_CACHE", str(tmp_path / "file" / "cache"))
    path = agent_path()
    assert path.read_bytes() == agent_bytes()
    assert path == agent_path()
    code = "from workers.latency.agent_file import agent_path; print(agent_path())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().endswith("agent.pyz")
    assert not Path(done.stdout.strip()).exists()


def test_from_its_sources_an_agent_serves_no_hub_and_says_what_to_start(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("CONDENSERY_TOKEN", "a-token")
    assert main(["run", "--hub", "http://127.0.0.1:1", "--folder", str(tmp_path)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "agent.pyz" in line


def test_a_device_without_numpy_gets_one_line_that_says_what_to_install():
    without_packages = [sys.executable, "-I", "-S", str(agent_path()), "run", "--hub", "http://127.0.0.1:1"]
    done = subprocess.run(without_packages, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "pip install numpy" in line
