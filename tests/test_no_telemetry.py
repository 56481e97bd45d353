"""Nothing is told to anyone: system calls show where a command and all it starts connect to, its home what it leaves.

A library that reports its use waits for seconds before it sends, and most commands are over by then; what it means to
send it first writes into its user's cache. So both are looked at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import plotly.graph_objects as go
import pytest
from PIL import Image

from dashboards.panels.image_files import browser_path
from tests.search.test_launch import STUDY
from tests.workers.agents import offer
from tests.workers.latency.test_latency_contract import write_network
from tests.workers.small_hub import PATIENCE_S, TOKEN, SmallHub
from workers.latency.agent_file import agent_path

ROOT = Path(__file__).parents[1]
# Commands one after another in one process, which imports the libraries for all: traced, that takes longest.
COMMANDS = """
import json, sys
import condensery
for words in json.loads(sys.argv[1]):
    sys.argv = ["condensery", *words]
    try:
        condensery.main()
    except SystemExit as end:
        assert not end.code, words
"""
STRACE = ("strace", "-D", "-f", "-qq", "-yy", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o")
USE_ONNXRUNTIME = "from workers.latency.agent.runtimes.onnx import OnnxRuntime; print(OnnxRuntime().version)"
DNS = 53

pytestmark = pytest.mark.slow(seconds=10)


def can_trace() -> bool:
    return (
        shutil.which("strace") is not None
        and subprocess.run(["strace", "-qq", "-o", os.devnull, "true"]).returncode == 0
    )


if not can_trace():
    pytest.skip("strace is not installed, or may not trace here", allow_module_level=True)


class User:
    """Someone with an empty home, whose commands are traced."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        self.traces: list[Path] = []
        # nothing else of this process's: onnxruntime, for one, sends nothing where a CI's variables are set
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        self.environment = {**kept, "HOME": str(self.home), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}

    @contextmanager
    def started(self, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A command that runs; it has ended when the block has, or is killed."""
        trace = self.folder / f"trace.{len(self.traces)}"
        self.traces.append(trace)
        process = subprocess.Popen(
            [*STRACE, str(trace), *words],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *words: str, **environment: str) -> str:
        with self.started(*words, **environment) as process:
            said, _ = process.communicate(timeout=180)
        assert process.returncode == 0, said
        return said

    def strangers(self) -> list[str]:
        """Return the system calls that reached beyond this machine, or asked for a name."""
        return [line for trace in self.traces for line in trace.read_text().splitlines() if reaches_out(line)]

    def left_at_home(self) -> set[str]:
        """Return the files in the home, but for our own cache."""
        files = {str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file()}
        return {name for name in files if not name.startswith(".cache/condensery/")}


def reaches_out(call: str) -> bool:
    """Whether a traced system call reaches beyond this machine; a UDP socket's connect by itself sends nothing."""
    address = re.search(r'(?:inet_addr\(|AF_INET6, )"([^"]+)"', call)
    port = re.search(r"sin6?_port=htons\((\d+)\)", call)
    if address is None or port is None:
        return False
    if int(port[1]) == DNS:  # a resolver of this machine asks others
        return True
    host = ip_address(address[1])
    host = getattr(host, "ipv4_mapped", None) or host
    return not host.is_loopback and not re.search(r"connect\(\d+<UDP", call)


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_the_trace_shows_look_ups_and_connections_of_a_child(user: User) -> None:
    ask = "import socket, sys\ntry: {}\nexcept OSError: pass"
    for call in (
        "socket.getaddrinfo('nobody.invalid', 80)",
        "socket.create_connection(('192.0.2.1', 9), timeout=0.01)",
    ):
        user.run(
            sys.executable, "-c", f"import subprocess\nsubprocess.run(['{sys.executable}', '-c', {ask.format(call)!r}])"
        )
        assert user.strangers()
        user.traces.clear()


def test_a_user_may_switch_onnxruntimes_telemetry_on_and_else_it_is_off(user: User) -> None:
    user.run(sys.executable, "-c", USE_ONNXRUNTIME)
    assert user.left_at_home() == set()
    version = user.run(sys.executable, "-c", USE_ONNXRUNTIME, ORT_DISABLE_TELEMETRY="0")
    if tuple(map(int, version.split(".")[:2])) >= (1, 29):  # earlier ones had none on Linux
        assert any("onnxruntime" in name for name in user.left_at_home())


def test_launch_pick_report_and_page_tell_nobody_anything(user: User) -> None:
    (user.folder / "study.toml").write_text(STUDY.format(files=user.folder / "files"))
    small = ("study.trainings=1", "training.epochs=1", "engine.workers=1", "search.startup=1")
    commands = [
        ["launch", "study.toml", *(word for setting in small for word in ("--set", setting))],
        ["pick", "study.toml", "--out", "bundle"],
        ["report", "study.toml", "--out", "report.html"],
        ["dashboard", "study.toml", "--port", "0"],
    ]
    with user.started(sys.executable, "-c", COMMANDS, json.dumps(commands)) as process:
        assert process.stdout is not None
        said = []
        while not (address := re.search(r"http://127\.\S+", "".join(said[-1:]))):
            said.append(process.stdout.readline())
            assert said[-1], "".join(said)  # it has ended
        for path in ("", "_dash-layout", "_dash-dependencies"):
            with urllib.request.urlopen(address[0] + path) as response:
                assert response.status == 200
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)  # to the end of the trace, whose writer has this output too
        assert process.returncode == 0
    assert (user.folder / "report.html").exists()
    Image.new("L", (20, 30)).save(user.folder / "photo.png")
    assert user.run(sys.executable, "bundle/infer.py", "photo.png").startswith("photo.png: ")
    assert user.strangers() == []
    assert user.left_at_home() == set()


def test_an_agent_talks_to_its_hub_alone(user: User) -> None:
    hub = SmallHub().start()
    try:
        job = hub.ask(offer(hub, write_network(user.folder / "model.onnx").read_bytes()))
        command = [sys.executable, str(agent_path()), "run", "--hub", hub.url, "--folder", "agent", "--once"]
        user.run(*command, CONDENSERY_TOKEN=TOKEN)
        assert job.state == "done"
    finally:
        hub.stop()
    assert user.strangers() == []
    assert user.left_at_home() == set()


def test_the_browser_that_draws_an_image_calls_nobody(user: User) -> None:
    if browser_path() is None:
        pytest.skip("there is no chromium")
    figure = user.folder / "figure.json"
    figure.write_text(go.Figure(go.Scatter(x=[1, 2], y=[1, 2])).to_json())
    draw = "import plotly.io, pathlib; from dashboards.panels.image_files import write_figure; "
    draw += "write_figure(plotly.io.read_json('figure.json'), pathlib.Path('figure.png'))"
    user.run(sys.executable, "-c", draw)
    assert (user.folder / "figure.png").stat().st_size > 1000
    assert user.strangers() == []


def test_onnxruntime_is_imported_in_one_place_and_in_bundles() -> None:
    packages = ("commands", "dashboards", "search", "space", "workers")
    importing = [
        str(path.relative_to(ROOT))
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*(import|from) onnxruntime", path.read_text(), re.MULTILINE)
    ]
    assert importing == ["workers/bundled/infer.py", "workers/latency/agent/runtimes/onnx.py"]
    for file in importing:
        text = (ROOT / file).read_text()
        assert text.index('os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")') < text.index("import onnxruntime\n")
