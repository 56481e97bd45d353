"""The agent and a hub: which jobs it accepts, what it sends back, and how it is started."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.workers.agents import ENDLESS, QUICKEST, offer, settings
from tests.workers.latency.test_latency_contract import write_network
from tests.workers.small_hub import PATIENCE_S, TOKEN
from workers.latency.agent.__main__ import main
from workers.latency.agent.reports import FORMAT
from workers.latency.agent.runtimes import installed_runtimes
from workers.latency.agent.serving import settings as agent_settings
from workers.latency.agent.serving.folder import identity_in
from workers.latency.agent.serving.protocol import PROTOCOL
from workers.latency.agent.serving.service import serve_hub
from workers.latency.agent_file import agent_path

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("our_own_signals")]


@pytest.fixture(autouse=True)
def started_from_its_file(monkeypatch) -> None:
    monkeypatch.setattr(agent_settings, "own_file", agent_path)


# ---- a job from its lease to its result ------------------------------------------------------------------


def test_jobs_of_one_lease_are_one_batch_and_each_gets_a_report_of_its_own(hub, tmp_path, network, other_network):
    anchor = hub.keep(network)
    jobs = [hub.ask(offer(hub, model, anchor=anchor)) for model in (network, other_network, b"no network")]
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert [job.state for job in jobs] == ["done", "done", "failed"]
    reports = [job.results[0] for job in jobs[:2]]
    for report, model in zip(reports, (network, other_network), strict=True):
        assert report["sha256"] == hashlib.sha256(model).hexdigest()
        assert (report["format"], report["mode"], report["threads"]) == (FORMAT, "wall", 1)
        assert (report["runtime"], report["policy"]) == ("onnxruntime", "quick")
        assert report["runtime_version"] == installed_runtimes()["onnxruntime"]
        assert report["tries"] == 1
        assert len(report["processes"]) == 1
        assert not {"path", "models", "attempt"} & set(report)
    assert reports[0]["processes"][0]["anchor_ms"] == reports[1]["processes"][0]["anchor_ms"]
    ((fault, reason),) = jobs[2].failures
    assert fault == "model"
    assert "\n" not in reason
    assert hub.count("/v1/models/.*") == 3  # the anchor and the first model are one file


def test_it_enrols_with_what_the_device_is_and_leaves_at_the_end(hub, tmp_path):
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert [path for _, path in hub.calls] == ["/v1/enrol", "/v1/leases", "/v1/leave"]
    enrolment = hub.bodies[0]
    assert enrolment["facts"]["runtimes"] == installed_runtimes()
    assert (enrolment["format"], enrolment["virtual"]) == (PROTOCOL, False)
    assert set(enrolment["facts"]) == {
        "cpu_model",
        "identity",
        "machine",
        "cores",
        "python_version",
        "runtimes",
        "pinned",
    }
    assert "temperature_c" in enrolment["conditions"]


def test_a_device_whose_clock_says_1973_measures_as_any_other(hub, tmp_path, network, monkeypatch):
    """A board without a battery, before it has asked for the time."""
    began = time.time()
    monkeypatch.setattr(time, "time", lambda: 1e8 + time.monotonic())
    job = hub.ask(offer(hub, network))
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert job.state == "done"
    assert time.time() < began


def test_it_is_the_same_agent_after_a_restart_and_another_one_in_another_folder(hub, tmp_path):
    (tmp_path / "other").mkdir()
    for folder in (tmp_path, tmp_path, tmp_path / "other"):
        serve_hub(settings(hub, folder))
    first, again, other = (body["instance"] for body in hub.bodies if "facts" in body)
    assert len(first) == 32
    assert first == again != other


def test_a_copied_card_in_another_board_is_another_agent(tmp_path):
    boards = [tmp_path / "one", tmp_path / "two"]
    for board in boards:
        (board / "proc/device-tree").mkdir(parents=True)
        (board / "proc/device-tree/serial-number").write_text(f"1000000{board.name}\0")
    folder = tmp_path / "agent"
    folder.mkdir()
    first = identity_in(folder, boards[0])
    assert identity_in(folder, boards[0]) == first
    second = identity_in(folder, boards[1])
    assert second != first
    assert identity_in(folder, boards[1]) == second


def test_a_lease_is_renewed_while_its_model_is_measured(hub, tmp_path, network):
    hub.lease_s = 0.4
    job = hub.ask(offer(hub, network, policy={**QUICKEST, "run_s": 0.5}))
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert "measuring" in job.states
    assert job.verdicts == ["accepted"]


def test_the_hub_is_told_at_once_when_the_measuring_begins(hub, tmp_path, network, monkeypatch):
    assert hub.lease_s == 60.0  # a heartbeat every 15 s would miss a measurement of one second
    job = hub.ask(offer(hub, network, policy={**QUICKEST, "run_s": 0.5}))
    answer = hub.answer

    def after_a_heartbeat(method: str, path: str, body: Any) -> tuple[int, Any]:
        """Hand out no model before the first heartbeat has come: the agent sends it from another thread."""
        if method == "GET":
            hub.wait_for(lambda: job.states)
        return answer(method, path, body)

    monkeypatch.setattr(hub, "answer", after_a_heartbeat)
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert job.states[-1] == "measuring"
    assert job.states[0] == "downloading"


def test_a_lost_lease_stops_the_batch_and_sends_nothing(hub, tmp_path, network):
    hub.lease_s = 0.4
    hub.trouble("/v1/jobs/1/heartbeat", "409")
    job, stops = hub.ask(offer(hub, network, policy=ENDLESS)), threading.Event()

    def once_lost() -> None:
        hub.wait_for(lambda: hub.count("/v1/leases") == 2)
        stops.set()

    watcher = threading.Thread(target=once_lost)
    watcher.start()
    assert serve_hub(settings(hub, tmp_path)) == 0  # 600 s of measuring would be too long for the test
    watcher.join()
    assert stops.is_set()
    assert (job.results, job.failures) == ([], [])


def test_the_log_has_one_line_per_event_with_the_time_and_never_the_token(hub, tmp_path, network, capfd):
    hub.ask(offer(hub, network))
    hub.trouble("/v1/leases", "503")
    serve_hub(settings(hub, tmp_path))
    log = capfd.readouterr().err
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "
    words = ["enrolled as tiny", "no answer from the hub", "the hub answers again", "enrolled as tiny"]
    words += ["took job 1", "job 1: result accepted", "left"]
    lines = log.splitlines()
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert re.match(stamp, line)
        assert word in line
    assert TOKEN not in log
    assert TOKEN not in repr(settings(hub, tmp_path))


# ---- counting --------------------------------------------------------------------------------------------

EMULATOR = """
import json, os, runpy, sys
counts = sys.argv[1]
sys.argv = sys.argv[2:]
real = os.getsid
def getsid(pid):  # what the emulator's plug-in does at the second marker
    if pid == 0x5EED02:
        with open(counts, "a") as file:
            file.write(json.dumps({"all": 1000, "branch": 10}) + "\\n")
    return real(pid)
os.getsid = getsid
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_virtual_device_counts_through_its_launcher(hub, tmp_path, network):
    job = hub.ask(offer(hub, network, mode="counts", anchor=None))
    launcher = (sys.executable, "-c", EMULATOR, "{counts}")
    assert serve_hub(settings(hub, tmp_path, launcher=launcher)) == 0
    assert hub.bodies[0]["virtual"] is True
    (report,) = job.results
    assert (report["mode"], report["sha256"]) == ("counts", hashlib.sha256(network).hexdigest())
    assert report["counts"] == [{"all": 1000, "branch": 10}] * 5
    assert not list((tmp_path / "agent").glob("counts*"))


def test_an_emulator_that_counts_nothing_is_the_devices_fault(hub, tmp_path, network):
    job = hub.ask(offer(hub, network, mode="counts", anchor=None))
    assert serve_hub(settings(hub, tmp_path, launcher=(sys.executable,))) == 0
    ((fault, reason),) = job.failures
    assert fault == "device"
    assert "counting emulator" in reason


CRASHING = EMULATOR.replace("real = os.getsid", "real = os.getsid; seen = []").replace(
    "    return real(pid)", "        seen.append(pid)\n        if len(seen) == 6: os.abort()\n    return real(pid)"
)


def test_a_model_that_kills_the_emulator_costs_the_others_nothing(hub, tmp_path, network, other_network):
    jobs = [hub.ask(offer(hub, model, mode="counts", anchor=None)) for model in (network, other_network)]
    launcher = (sys.executable, "-c", CRASHING, "{counts}")  # dies in the second model of a process
    assert serve_hub(settings(hub, tmp_path, launcher=launcher)) == 0
    assert [job.state for job in jobs] == ["done", "failed"]
    ((fault, reason),) = jobs[1].failures
    assert fault == "model"
    assert "signal" in reason


# ---- what it doesn't accept --------------------------------------------------------------------------------

MODEL = {"sha256": "0" * 64, "size": 10}
MALFORMED = [
    ("mode", "shell"),
    ("mode", "counts"),
    ("mode", None),
    ("runtime", "os"),
    ("runtime", ["onnxruntime"]),
    ("threads", 99_999),
    ("threads", True),
    ("threads", 1.0),
    ("precision", "int4"),
    ("model", {"sha256": "../../../etc/passwd", "size": 10}),
    ("model", {"sha256": "A" * 64, "size": 10}),
    ("model", {"sha256": "0" * 64 + "\n", "size": 10}),
    ("model", {"sha256": "0" * 64, "size": 0}),
    ("model", {"sha256": "0" * 64, "size": 10**15}),
    ("model", "0" * 64),
    ("anchor", None),
    ("policy", None),
    ("policy", {}),
    ("policy", {**QUICKEST, "runs": 0}),
    ("policy", {**QUICKEST, "runs": "1"}),
    ("policy", {**QUICKEST, "run_s": float("nan")}),
    ("policy", {**QUICKEST, "timeout_s": float("inf")}),
    ("policy", {**QUICKEST, "cooldown_s": -1}),
    ("policy", {**QUICKEST, "label": "; rm -rf ~"}),
]


def test_a_malformed_job_is_answered_with_a_fault_of_the_device_and_nothing_of_it_is_used(hub, tmp_path, network):
    jobs = [hub.ask({**offer(hub, network), name: value}) for name, value in MALFORMED]
    good = hub.ask(offer(hub, network))
    assert serve_hub(settings(hub, tmp_path, limit=len(MALFORMED) + 1)) == 0
    for job, (name, value) in zip(jobs, MALFORMED, strict=True):
        ((fault, reason),) = job.failures
        assert fault == "device"
        assert name in reason, value
        assert reason.isprintable()
    assert good.state == "done"
    assert hub.count("/v1/models/.*") == 1


def test_a_job_unlike_the_others_of_its_lease_is_given_back(hub, tmp_path, network):
    jobs = [hub.ask(offer(hub, network)), hub.ask(offer(hub, network, policy={**QUICKEST, "runs": 2}))]
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert [job.state for job in jobs] == ["done", "failed"]
    assert jobs[1].failures[0][0] == "device"


def test_a_job_without_an_id_is_skipped(hub, tmp_path, network):
    hub.ask({**offer(hub, network), "id": "1; reboot"})
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert [path for _, path in hub.calls if "jobs" in path] == []


def test_a_virtual_device_times_nothing(hub, tmp_path, network):
    job = hub.ask(offer(hub, network))
    assert serve_hub(settings(hub, tmp_path, launcher=(sys.executable,))) == 0
    assert job.failures[0][0] == "device"


# ---- models ----------------------------------------------------------------------------------------------


def cached(folder: Path) -> set[str]:
    return {path.name for path in (folder / "agent" / "models").iterdir()}


def test_a_model_is_fetched_once_for_all_its_jobs(hub, tmp_path, network):
    for _ in range(2):
        hub.ask(offer(hub, network))
        serve_hub(settings(hub, tmp_path))
    assert hub.count("/v1/models/.*") == 1
    assert cached(tmp_path) == {hashlib.sha256(network).hexdigest()}


def test_a_damaged_model_in_the_cache_is_fetched_again(hub, tmp_path, network):
    jobs = [hub.ask(offer(hub, network))]
    serve_hub(settings(hub, tmp_path))
    (tmp_path / "agent" / "models" / jobs[0].offer["model"]["sha256"]).write_bytes(bytes(len(network)))
    jobs.append(hub.ask(offer(hub, network)))
    serve_hub(settings(hub, tmp_path))
    assert hub.count("/v1/models/.*") == 2
    assert [job.state for job in jobs] == ["done", "done"]


def test_bytes_that_do_not_match_the_hash_are_discarded_and_fetched_again(hub, tmp_path, network):
    job = hub.ask(offer(hub, network))
    hub.trouble("/v1/models/.*", "other bytes")
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert job.state == "done"
    assert hub.count("/v1/models/.*") == 2


@pytest.mark.parametrize("change", [0, 1, -1])
def test_a_model_that_comes_wrong_twice_is_a_fault_of_the_device(hub, tmp_path, network, change):
    job = hub.ask(offer(hub, network))
    job.offer["model"] = job.offer["anchor"] = {**job.offer["model"], "size": len(network) + change}
    if change == 0:
        hub.trouble("/v1/models/.*", "other bytes", "other bytes")
    assert serve_hub(settings(hub, tmp_path)) == 0
    ((fault, reason),) = job.failures
    assert fault == "device"
    assert "twice" in reason
    assert cached(tmp_path) == set()


def test_the_cache_keeps_to_its_size_and_the_oldest_models_go(hub, tmp_path, network, other_network):
    third = write_network(tmp_path / "c.onnx", 6).read_bytes()
    room = len(other_network) + len(third)
    for model in (network, other_network, network, third):
        hub.ask(offer(hub, model))
        serve_hub(settings(hub, tmp_path, cache_bytes=room))
        time.sleep(0.01)  # the next is newer on every file system
    assert cached(tmp_path) == {hashlib.sha256(model).hexdigest() for model in (network, third)}


def test_a_device_without_room_says_so_and_goes_on_with_models_that_fit(hub, start_agent, network):
    def a_small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    large = hub.ask(offer(hub, os.urandom(200_000), anchor=hub.keep(network)))
    small = hub.ask(offer(hub, network))
    running = start_agent("--once", preexec_fn=a_small_disk)
    assert running.process.wait(PATIENCE_S) == 0
    ((fault, reason),) = large.failures
    assert fault == "device"
    assert "can't be stored" in reason
    assert small.state == "done"


# ---- the command line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--hub", "hub.example"], "--hub must be an address"),
        (["--hub", "file:///etc/passwd"], "--hub must be an address"),
        (["--hub", "http://user:word@hub.example"], "--hub must be an address"),
        (["--hub", "http://hub.example:99999999"], "--hub must be an address"),
        (["--hub", "http://hub.example", "--core", "99999"], "--core must be one of"),
        (["--hub", "http://hub.example", "--launcher", '["qemu"]'], "--virtual needs --launcher"),
        (["--hub", "http://hub.example", "--virtual"], "--virtual needs --launcher"),
        (["--hub", "http://hub.example", "--virtual", "--launcher", "qemu"], "--virtual needs --launcher"),
        (["--hub", "http://hub.example", "--virtual", "--launcher", "[1]"], "--virtual needs --launcher"),
        (["--hub", "http://hub.example", "--token-file", "no/such/file"], "--token-file must hold"),
        (["--hub", "https://hub.example", "--cafile", "no/such/file"], "--cafile must hold"),
    ],
)
def test_a_wrong_option_ends_with_code_2_and_one_line(tmp_path, monkeypatch, capfd, options, complaint):
    monkeypatch.setenv("CONDENSERY_TOKEN", TOKEN)
    assert main(["run", "--folder", str(tmp_path / "agent"), *options]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert complaint in line


@pytest.mark.parametrize("token", ["", "two words", "tökén"])
def test_without_a_proper_token_it_does_not_start(tmp_path, monkeypatch, capfd, token):
    monkeypatch.setenv("CONDENSERY_TOKEN", token)
    assert main(["run", "--folder", str(tmp_path / "agent"), "--hub", "http://hub.example"]) == 2
    assert "CONDENSERY_TOKEN" in capfd.readouterr().err


def test_the_token_comes_from_a_file_or_the_environment_and_never_reaches_a_child(hub, tmp_path, monkeypatch, network):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    options = ["run", "--hub", f"{hub.url}/", "--folder", str(tmp_path / "agent"), "--once"]
    assert main([*options, "--token-file", str(file)]) == 0
    monkeypatch.setenv("CONDENSERY_TOKEN", TOKEN)
    job = hub.ask(offer(hub, network))
    assert main(options) == 0
    assert job.state == "done"
    assert "CONDENSERY_TOKEN" not in os.environ
