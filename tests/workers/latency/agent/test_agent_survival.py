"""What the agent survives: a hub that is away, slow or strange, signals, kills and crashes."""

from __future__ import annotations

import os
import signal
import ssl
import threading
import time

import pytest

from tests.certificates import self_signed
from tests.waiting import until
from tests.workers.agents import ENDLESS, is_gone, offer, settings
from tests.workers.small_hub import PATIENCE_S, SmallHub
from workers.latency.agent.serving import delivery
from workers.latency.agent.serving.service import serve_hub
from workers.latency.agent.serving.waiting import Backoff

pytestmark = [pytest.mark.slow(seconds=1), pytest.mark.usefixtures("our_own_signals")]

# ---- a hub that is away, slow or strange -----------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(Backoff, "next_s", lambda self: 0.01)


@pytest.mark.parametrize("kinds", [["503", "cut", "stall", "a page"], ["500", "no answer", "no JSON", "a list"]])
def test_every_call_is_made_again_until_it_is_answered(hub, tmp_path, network, quick, kinds):
    job = hub.ask(offer(hub, network))
    for path in ("/v1/enrol", "/v1/leases", "/v1/models/.*", "/v1/jobs/1/result"):
        is_json = path != "/v1/models/.*"
        hub.trouble(path, *(kind for kind in kinds if is_json or kind not in ("no JSON", "a list")))
    assert serve_hub(settings(hub, tmp_path, call_s=0.3)) == 0
    assert job.state == "done"
    assert len(job.results) == 1


def test_a_hub_that_is_not_there_yet_is_waited_for(tmp_path, network):
    hub = SmallHub().start()
    job = hub.ask(offer(hub, network))
    hub.stop()
    timer = threading.Timer(0.7, hub.start)
    timer.start()
    assert serve_hub(settings(hub, tmp_path)) == 0
    hub.stop()
    assert job.state == "done"


def test_no_redirect_is_followed(hub, tmp_path, network, capfd):
    elsewhere = SmallHub().start()
    hub.ask(offer(hub, network))
    for path in ("/v1/enrol", "/v1/leases", "/v1/models/.*"):
        hub.trouble(path, elsewhere.url)
    assert serve_hub(settings(hub, tmp_path)) == 0
    elsewhere.stop()
    assert elsewhere.calls == []
    assert "status 307; give the address it points to as --hub" in capfd.readouterr().err


def test_a_refused_token_ends_the_agent_with_code_3_and_one_line(hub, tmp_path, capfd):
    assert serve_hub(settings(hub, tmp_path, token="another")) == 3
    (line,) = capfd.readouterr().err.splitlines()
    assert "wrong or revoked" in line


def test_a_token_revoked_while_measuring_ends_the_agent(hub, tmp_path, network):
    hub.lease_s = 0.4
    job = hub.ask(offer(hub, network, policy=ENDLESS))
    hub.trouble("/v1/jobs/1/heartbeat", "401")
    assert serve_hub(settings(hub, tmp_path)) == 3
    assert job.results == []


def test_it_waits_while_another_agent_serves_the_device_and_logs_that_once(hub, tmp_path, capfd):
    hub.trouble("/v1/enrol", "409", "409")
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert hub.count("/v1/enrol") == 1
    log = capfd.readouterr().err
    assert log.count("waiting") == 1
    assert "\x1b" not in log  # what a hub says is printed plainly


@pytest.mark.parametrize("kind", ["404", "a page"])
def test_a_wrong_path_in_the_hubs_address_is_asked_about(hub, tmp_path, capfd, kind: str):
    hub.trouble("/v1/enrol", kind, kind)
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert capfd.readouterr().err.count("is the address right?") == 1


def test_it_enrols_again_when_the_hub_no_longer_knows_it(hub, tmp_path, network):
    job = hub.ask(offer(hub, network))
    hub.trouble("/v1/leases", "409")
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert hub.count("/v1/enrol") == 2
    assert job.state == "done"


def test_a_hub_that_speaks_another_protocol_ends_the_agent(hub, tmp_path, capfd):
    hub.trouble("/v1/enrol", "422")
    assert serve_hub(settings(hub, tmp_path)) == 2
    assert "/agent.pyz" in capfd.readouterr().err


def test_a_report_the_hub_refuses_becomes_a_fault_of_the_device(hub, tmp_path, network):
    job = hub.ask(offer(hub, network))
    hub.trouble("/v1/jobs/1/result", "413")
    assert serve_hub(settings(hub, tmp_path)) == 0
    ((fault, reason),) = job.failures
    assert (fault, "413" in reason) == ("device", True)


FAILS = 2  # errors of the hub after which one report is not sent again


@pytest.fixture
def impatient(monkeypatch, quick):
    monkeypatch.setattr(delivery, "HUB_ERRORS_MOST", FAILS)


def test_a_report_that_the_hub_fails_at_each_time_becomes_a_fault_of_the_device(hub, tmp_path, network, impatient):
    job = hub.ask(offer(hub, network))
    hub.trouble("/v1/jobs/1/result", *["500"] * (FAILS + 1))
    assert serve_hub(settings(hub, tmp_path)) == 0
    ((fault, reason),) = job.failures
    assert fault == "device"
    assert reason == f"the hub can't take this agent's report ({FAILS + 1} times, it answered with status 500)"
    assert job.results == []


def test_a_report_whose_failure_the_hub_fails_at_too_is_dropped(hub, tmp_path, network, impatient, capfd):
    job, good = hub.ask(offer(hub, network)), hub.ask(offer(hub, network))
    hub.trouble("/v1/jobs/1/(result|failure)", *["500"] * 2 * (FAILS + 1))
    assert serve_hub(settings(hub, tmp_path, limit=1)) == 0
    assert (job.results, job.failures) == ([], [])
    assert good.state == "done"
    assert not list((tmp_path / "agent" / "unsent").glob("*/*"))
    assert "job 1: the hub can't take the failure (3 times, " in capfd.readouterr().err


def test_a_hub_or_database_that_is_away_is_no_error_of_its_own(hub, tmp_path, network, impatient):
    job = hub.ask(offer(hub, network))
    for kind in ("502", "503", "504", "cut", "no answer"):
        hub.trouble("/v1/jobs/1/result", *[kind] * 3 * FAILS)
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert job.failures == []
    assert len(job.results) == 1


def test_errors_that_are_fewer_cost_nothing(hub, tmp_path, network, impatient):
    job = hub.ask(offer(hub, network))
    hub.trouble("/v1/jobs/1/result", *["500"] * FAILS)
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert (job.failures, len(job.results)) == ([], 1)


def test_over_https_a_hub_must_show_a_certificate_that_is_trusted(tmp_path, network, capfd):
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hub = SmallHub().start(context)
    job = hub.ask(offer(hub, network))
    assert serve_hub(settings(hub, tmp_path, cafile=certificate)) == 0
    assert job.state == "done"
    calls = len(hub.calls)
    before = signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        until(lambda: signal.getsignal(signal.SIGTERM) != before)  # the agent takes it itself
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert serve_hub(settings(hub, tmp_path)) == 0
    hub.stop()
    assert len(hub.calls) == calls
    assert "its certificate can't be trusted (self-signed certificate); name a file" in capfd.readouterr().err


# ---- ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_children_gives_the_lease_back_and_leaves(hub, start_agent, network, number):
    job = hub.ask(offer(hub, network, policy=ENDLESS))
    running = start_agent()
    until(running.children)
    children = running.children()
    assert running.end(number) == 0
    assert all(is_gone(child) for child in children)
    assert hub.count("/v1/leave") == 1
    assert (job.state, job.results) == ("waiting", [])


@pytest.mark.parametrize("path", ["/v1/leases", "/v1/enrol", "/v1/models/.*"])
def test_a_signal_ends_a_call_that_gets_no_answer(hub, start_agent, network, path):
    hub.ask(offer(hub, network))
    hub.trouble(path, "stall")
    running = start_agent()
    hub.wait_for(lambda: hub.count(path))
    assert running.end(signal.SIGTERM) == 0


def test_the_children_of_a_killed_agent_end_too(hub, start_agent, network):
    hub.ask(offer(hub, network, policy=ENDLESS))
    running = start_agent()
    until(running.children)
    (child,) = running.children()
    running.end(signal.SIGKILL)
    until(lambda: is_gone(child))


def test_a_second_agent_in_the_same_folder_ends_with_one_line(hub, start_agent, tmp_path, capfd):
    start_agent()
    hub.wait_for(lambda: hub.count("/v1/leases"))
    assert serve_hub(settings(hub, tmp_path)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "another agent works in it" in line


def test_what_was_measured_while_the_hub_went_away_is_sent_after_a_restart(hub, start_agent, tmp_path, network):
    job = hub.ask(offer(hub, network))
    hub.trouble("/v1/jobs/1/result", *["503"] * 50)
    first = start_agent()
    until(lambda: list((tmp_path / "agent" / "unsent").glob("*/1-1.json")))
    first.end(signal.SIGKILL)
    hub._trouble.clear()
    second = start_agent("--once")
    assert second.process.wait(PATIENCE_S) == 0
    assert (job.verdicts[0], len(job.results), job.attempt) == ("accepted", 1, 1)  # it was not measured again
    assert not list((tmp_path / "agent" / "unsent").glob("*/*"))


def test_a_result_is_kept_for_the_hub_it_belongs_to(hub, start_agent, tmp_path, network):
    hub.ask(offer(hub, network))
    hub.trouble("/v1/jobs/1/result", *["503"] * 50)
    first = start_agent()
    until(lambda: list((tmp_path / "agent" / "unsent").glob("*/1-1.json")))
    first.end(signal.SIGKILL)
    elsewhere = SmallHub().start()
    assert serve_hub(settings(elsewhere, tmp_path)) == 0
    elsewhere.stop()
    assert elsewhere.count("/v1/jobs/.*") == 0


def test_an_unsent_result_that_a_crash_left_in_pieces_is_dropped(hub, tmp_path, capfd):
    serve_hub(settings(hub, tmp_path))
    (folder,) = (tmp_path / "agent" / "unsent").iterdir()
    pieces = {
        "1-1.json": "{",
        "2-1.json": "[]",
        "3-1.json": '{"id": 3, "attempt": 1, "kind": "x"}',
        "4-1.json.part": "{",
    }
    for name, content in pieces.items():
        (folder / name).write_text(content)
    assert serve_hub(settings(hub, tmp_path)) == 0
    assert list(folder.iterdir()) == []
    assert capfd.readouterr().err.count("can't be read and is lost") == 3


# Quickly where the hub has just given a job away, and where it has just taken a result.
QUICK_MOMENTS = ("/v1/leases", "/v1/jobs/1/result")
LONG_MOMENTS = ("/v1/enrol", "/v1/models/.*", "/v1/jobs/1/heartbeat")


@pytest.mark.parametrize(
    "moment", [*QUICK_MOMENTS, *(pytest.param(moment, marks=pytest.mark.long) for moment in LONG_MOMENTS)]
)
def test_a_kill_at_any_moment_loses_no_job_and_does_none_twice(hub, start_agent, network, other_network, moment):
    hub.lease_s = 0.4
    anchor = hub.keep(network)
    jobs = [hub.ask(offer(hub, model, anchor=anchor)) for model in (network, other_network)]
    hub.trouble(moment, "stall")  # the hub has done its part, the agent has not heard of it
    first = start_agent()
    hub.wait_for(lambda: hub.count(moment))
    first.end(signal.SIGKILL)
    second = start_agent("--once")
    assert second.process.wait(PATIENCE_S) == 0
    assert [(job.state, len(job.results)) for job in jobs] == [("done", 1)] * 2
