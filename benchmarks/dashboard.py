"""The live page and the report beside optuna-dashboard, on the same SQLite file.

    python -m benchmarks.dashboard [--trials 2000 10000] [--rounds 3] [--timeout-s 400] [--quick]

The file is filled by `benchmarks.dashboard_fill`: the same trials in our tables and in Optuna's. Both servers are
started again for each size, one after the other, and looked at with the same headless Chromium (WebGL by software):

- first front: from the start of the navigation until the Pareto chart is drawn and the browser has painted, in an idle
  window of a browser that is not inspected (`bare_browser`); the first visit of a server just started, then further
  ones without a cache;
- budget step: from a key on the slider until the sentence and the line above the front have changed and are painted
  (optuna-dashboard has no budget);
- poll: what the page asks for every 1.5 s (optuna-dashboard's, every 10 s) while nothing is new, and after a new trial;
- growth: from the commit of a new trial until the open page counts it;
- memory: the server's resident set after all of this.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bare_browser import BareBrowser
from benchmarks.dashboard_fill import STUDY, grow
from benchmarks.record import save
from tests.dashboards.browser import CHROMIUM, FLAGS

ROOT = Path(__file__).parent.parent
SETTLES_MS = 4000  # what was new before is drawn by then
LIMITS = {"first front s": 2.0, "budget step ms": 300.0, "unchanged poll ms": 50.0, "server MB": 400.0}
# In the page: a graph has ticks once Plotly has drawn what it was given; two frames later it is on the screen.
PAINTED = "requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())))"
DRAWN = "((graph) => graph && (graph._fullData || []).length > 2 && graph.querySelector('.xtick'))({})"
OURS_DRAWN = DRAWN.replace("{}", "document.querySelector('#front-graph .js-plotly-plot')")
REPORT_DRAWN = DRAWN.replace("{}", "document.getElementById('front-chart')")
PEER_DRAWN = DRAWN.replace("{}", "document.getElementById('graph-pareto-front')").replace("> 2", "> 0")
STEP = (
    "() => { window.stepped = new Promise((done) => addEventListener('keydown', () => {"
    "const said = () => [document.getElementById('sentence').textContent, "
    "document.querySelector('#front .mark.label').textContent];"
    "const before = said(), begin = performance.now(); const look = () => {"
    "const now = said(); const changed = now[0] !== before[0] && now[1] !== before[1];"
    "if (changed) { requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin), 0)); }"
    "else { requestAnimationFrame(look); } }; look(); }, { once: true, capture: true })); }"
)


@dataclass(frozen=True)
class Wanted:
    """How much is measured."""

    trials: list[int]
    rounds: int
    polls: int
    timeout_s: float  # of one thing that the peer does


# ---- servers ----------------------------------------------------------------------------------------------


@contextmanager
def served(command: list[str], address: re.Pattern[str]) -> Iterator[tuple[str, psutil.Process]]:
    """Start a server and wait until it prints its address; end it at the end."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if (match := address.search(line)) is not None:
                break
        else:
            raise SystemExit(f"{command[0]} ended without serving")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # or a full pipe would stop it
        yield match[1], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def ours(url: str) -> Any:
    command = [sys.executable, str(ROOT / "condensery.py"), "dashboard", STUDY, "--storage", url, "--port", "0"]
    return served(command, re.compile(r"dashboard at (http://\S+/)"))


def peer(url: str) -> Any:
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), url, "--port", str(_free_port())]
    return served(command, re.compile(r"(http://[\w.:]+/)"))


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def resident_mb(process: psutil.Process) -> float:
    """Return the memory of a server and its children."""
    processes = (process, *process.children(recursive=True))
    return sum(member.memory_info().rss for member in processes) / 2**20


def answered(address: str, timeout_s: float) -> tuple[float, int, bytes]:
    """Ask for a page; return the milliseconds until all of the answer is here, its status and its content."""
    begin = time.perf_counter()
    with urllib.request.urlopen(address, timeout=timeout_s) as answer:
        content = answer.read()
    return 1000 * (time.perf_counter() - begin), answer.status, content


# ---- in the browser ---------------------------------------------------------------------------------------


def first_fronts(address: str, drawn: str, wanted: Wanted) -> list[float | None]:
    """Return the seconds until a page's front was drawn, of visits one after the other; None: not in time."""
    look = (
        f"new Promise((done) => {{ const look = () => {{ if ({drawn}) {{ {PAINTED}; }} "
        "else { setTimeout(look, 10); } }; look(); })"
    )
    seconds: list[float | None] = []
    with BareBrowser(str(CHROMIUM), FLAGS) as browser:
        for _ in range(wanted.rounds):
            try:
                seconds.append(round(browser.visit(address, look, wanted.timeout_s) / 1000, 3))
            except TimeoutError:
                return [*seconds, None]  # further visits would take as long
    return seconds


@contextmanager
def opened(browser: Any, address: str, drawn: str, timeout_s: float) -> Iterator[Any]:
    """Open a page, to be used once its front is drawn."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    try:
        page.set_default_timeout(1000 * timeout_s)
        page.goto(address, wait_until="commit")
        page.wait_for_function(f"() => {drawn}")
        yield page
    finally:
        context.close()


def budget_steps(page: Any, rounds: int) -> list[float]:
    """Return the milliseconds of steps of the budget by keys."""
    page.locator("#range-0").focus()
    page.evaluate(
        "() => new Promise((done) => { const look = () => document.querySelector('#front .mark.label')?.textContent"
        " ? setTimeout(done, 3000) : setTimeout(look, 20); look(); })"  # 3 s: the page's other charts
    )
    steps = []
    for turn in range(rounds):
        page.evaluate(STEP)
        page.keyboard.press("ArrowLeft" if turn % 2 else "PageDown")
        steps.append(page.evaluate("() => window.stepped"))
        page.wait_for_timeout(400)
    return steps


# ---- what is measured -------------------------------------------------------------------------------------


def measure_ours(browser: Any, url: str, wanted: Wanted, trials: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with ours(url) as (address, process):
        figures["first_front_s"] = fronts(first_fronts(address, OURS_DRAWN, wanted))
        with opened(browser, address, OURS_DRAWN, wanted.timeout_s) as page:
            figures["budget_step_ms"] = spread(budget_steps(page, 2 * wanted.rounds))
            figures["poll_ms"], figures["growth_poll_ms"] = polls(address, url, wanted)
            figures["growth_shown_s"] = growth(page, url, trials + 1, wanted)
        figures["server_mb"] = resident_mb(process)
    return figures


def polls(address: str, url: str, wanted: Wanted) -> tuple[dict[str, float], float]:
    """Return the milliseconds of polls with nothing new, and of the first after a new trial."""
    stamps: dict[str, Any] = {}  # of what the page shows, as the server gave them
    quiet = []

    def ask() -> tuple[float, int]:
        words = {name: value for name, value in stamps.items() if value is not None}
        took, status, content = answered(f"{address}news?{urllib.parse.urlencode(words)}", wanted.timeout_s)
        stamps.update(json.loads(content) if content else {})
        return took, status

    ask()
    while len(quiet) < wanted.polls:
        took, status = ask()
        if status == 204:
            quiet.append(took)
        time.sleep(0.1)
    grow(url, 1)
    took, status = ask()
    if status != 200:
        raise SystemExit("a new trial was no news")
    return spread(quiet), took


def growth(page: Any, url: str, trials: int, wanted: Wanted) -> dict[str, float]:
    """Return the seconds from a new trial's commit until the page counts it."""
    seconds = []
    for turn in range(wanted.rounds):
        page.wait_for_timeout(SETTLES_MS)
        grow(url, 1, seed=10 + turn)
        begin = time.perf_counter()
        count = f"{trials + turn + 1:,}"
        page.evaluate(
            f"() => new Promise((done) => {{ const look = () => document.getElementById('counts').textContent.includes("
            f"{json.dumps(count)}) ? done() : setTimeout(look, 20); look(); }})"
        )
        seconds.append(time.perf_counter() - begin)
    return spread(seconds)


def measure_peer(url: str, wanted: Wanted) -> dict[str, Any]:
    """Return optuna-dashboard's figures; None where it didn't come in time."""
    figures: dict[str, Any] = {}
    with peer(url) as (address, process):
        figures["first_front_s"] = fronts(first_fronts(f"{address}dashboard/studies/1", PEER_DRAWN, wanted))
        try:
            _, _, content = answered(f"{address}api/studies/1?after=0", wanted.timeout_s)
            trials = len(json.loads(content)["trials"])
            rounds = [answered(f"{address}api/studies/1?after={trials}", wanted.timeout_s)[0]]
            while len(rounds) < wanted.polls and sum(rounds) < 60_000:
                rounds.append(answered(f"{address}api/studies/1?after={trials}", wanted.timeout_s)[0])
            figures["poll_ms"] = spread(rounds)
        except (TimeoutError, urllib.error.URLError):
            figures["poll_ms"] = None
        figures["server_mb"] = resident_mb(process)
    return figures


def measure_report(browser: Any, url: str, folder: Path, wanted: Wanted) -> dict[str, Any]:
    path = folder / "report.html"
    command = [sys.executable, str(ROOT / "condensery.py"), "report", STUDY, "--storage", url, "--out", str(path)]
    written = []
    for _ in range(wanted.rounds):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        written.append(time.perf_counter() - begin)
    with opened(browser, path.as_uri(), REPORT_DRAWN, wanted.timeout_s) as page:
        steps = budget_steps(page, 2 * wanted.rounds)
    return {
        "write_s": spread(written),  # the command, its start included
        "bytes": path.stat().st_size,
        "first_front_s": fronts(first_fronts(path.as_uri(), REPORT_DRAWN, wanted)),
        "budget_step_ms": spread(steps),
    }


def fronts(visits: list[float | None]) -> dict[str, Any]:
    """Return the first visit's seconds, the further ones' and the median; None where one didn't come in time."""
    in_time = [seconds for seconds in visits if seconds is not None]
    median = statistics.median(in_time) if len(in_time) == len(visits) else None
    return {"first": visits[0], "further": visits[1:], "median": median}


def spread(values: list[float]) -> dict[str, float]:
    """Return min, median and max, rounded."""
    return {"min": round(min(values), 3), "median": round(statistics.median(values), 3), "max": round(max(values), 3)}


def measure(wanted: Wanted) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    result: dict[str, Any] = {}
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as name:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        for trials in wanted.trials:
            folder = Path(name) / str(trials)
            folder.mkdir()
            url = f"sqlite:///{folder / 'study.db'}"
            fill_line = [sys.executable, "-m", "benchmarks.dashboard_fill", url, str(trials)]
            subprocess.run(fill_line, check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
            figures = {"report": measure_report(browser, url, folder, wanted)}
            print(f"{trials} trials, the report: {json.dumps(figures['report'])}", flush=True)
            figures["peer"] = measure_peer(url, wanted)
            print(f"{trials} trials, optuna-dashboard: {json.dumps(figures['peer'])}", flush=True)
            figures["ours"] = measure_ours(browser, url, wanted, trials)  # last: it adds trials
            print(f"{trials} trials, the live page: {json.dumps(figures['ours'])}", flush=True)
            result[str(trials)] = figures
        browser.close()
    return result


def verdicts(result: dict[str, Any]) -> list[str]:
    """Return the limits that were missed, in words."""
    missed = []
    for trials, figures in result.items():
        page, report = figures["ours"], figures["report"]
        seen = {
            "first front s": page["first_front_s"]["first"],
            "budget step ms": page["budget_step_ms"]["max"],
            "unchanged poll ms": page["poll_ms"]["max"],
            "server MB": page["server_mb"],
        }
        missed += [
            f"{trials} trials: {name} {value} > {LIMITS[name]:.0f}"
            for name, value in seen.items()
            if value is None or value > LIMITS[name]
        ]
        if report["bytes"] > 6_000_000:
            missed.append(f"{trials} trials: the report has {report['bytes']:,} bytes")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description="The dashboards beside optuna-dashboard.")
    parser.add_argument("--trials", type=int, nargs="+", default=[2000, 10000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout-s", type=float, default=400.0)
    parser.add_argument("--quick", action="store_true", help="200 trials, and nothing is saved: whether it runs")
    given = parser.parse_args()
    wanted = Wanted([200] if given.quick else given.trials, given.rounds, 5 if given.quick else 40, given.timeout_s)
    result = measure(wanted)
    for line in verdicts(result) or ["every limit is kept"]:
        print(line)
    if not given.quick:
        save("dashboard", {"rounds": wanted.rounds, "limits": LIMITS, "by_trials": result})


if __name__ == "__main__":
    main()
