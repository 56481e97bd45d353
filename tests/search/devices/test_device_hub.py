"""The hub's HTTP interface: the way of a job through it, and that a device learns of nothing but its own."""

from __future__ import annotations

import re

import pytest

from search.devices import registry
from search.devices.schemas import OLD_AGENT
from tests.search.tiny_devices import CONDITIONS, FACTS, LEASE_S, counts_report, wall_report
from tests.search.tiny_hub import CALLS, CALLS_DESCRIBED, ONE, TWO, Hub, result_of
from workers.latency.agent.serving.protocol import PROTOCOL
from workers.latency.agent_file import agent_bytes, agent_sha256

# -- one job --


def test_an_agent_enrols_leases_fetches_measures_and_leaves(hub: Hub):
    token = hub.add("pi")
    (key,) = hub.desk.submit("net")
    enrolled = hub.enrol(token)
    assert enrolled.status_code == 200
    assert enrolled.json() == {"device": "pi", "queue": "pi5", "retry_s": 0.5, "lease_s": LEASE_S}
    (job,) = hub.lease(token).json()["jobs"]
    assert set(job) == set("id attempt mode model anchor runtime threads precision policy".split())
    assert (job["id"], job["attempt"], job["mode"], job["precision"]) == (key, 1, "wall", "fp32")
    model = hub.get(token, f"/v1/models/{job['model']['sha256']}")
    assert (model.status_code, model.content, model.headers["content-type"]) == (
        200,
        b"net",
        "application/octet-stream",
    )
    assert len(hub.get(token, f"/v1/models/{job['anchor']['sha256']}").content) == job["anchor"]["size"]
    sign = {"instance": ONE, "attempt": 1, "state": "measuring", "conditions": CONDITIONS}
    assert hub.post(token, f"/v1/jobs/{key}/heartbeat", sign).json() == {"lease_s": LEASE_S}
    assert hub.post(token, f"/v1/jobs/{key}/result", result_of(job)).json() == {"verdict": "accepted"}
    assert hub.post(token, f"/v1/jobs/{key}/result", result_of(job)).json() == {"verdict": "repeated"}
    assert hub.lease(token).json() == {"jobs": []}
    assert hub.post(token, "/v1/leave", {"instance": ONE}).json() == {"recorded": True}
    assert hub.lease(token).status_code == 409
    assert hub.desk.job(key).report == wall_report(job["model"]["sha256"])


def test_a_virtual_device_counts(hub: Hub):
    token = hub.add("soft", "counted", profile="pi")
    (key,) = hub.desk.submit("net", queue="counted", mode="counts", anchor_sha256=None)
    assert hub.enrol(token, virtual=True).status_code == 200
    (job,) = hub.lease(token).json()["jobs"]
    assert (job["mode"], job["anchor"]) == ("counts", None)
    report = counts_report(job["model"]["sha256"])
    assert hub.post(token, f"/v1/jobs/{key}/result", result_of(job, report)).json() == {"verdict": "accepted"}


def test_an_agent_of_the_other_kind_is_told_whose_token_it_has(hub: Hub):
    real, soft = hub.add("pi"), hub.add("soft", "counted", profile="pi")
    response = hub.enrol(soft)
    assert response.status_code == 422
    assert (
        response.json()["detail"]
        == "'soft' is a virtual device, but this agent serves a real device; use that one's token"
    )
    assert hub.enrol(real, virtual=True).status_code == 422


def test_a_device_of_another_kind_than_its_queues_is_refused_in_one_line(hub: Hub):
    first, second = hub.add("one"), hub.add("two")
    assert hub.enrol(first, ONE).status_code == 200
    unlike = {**FACTS, "cpu_model": "Raspberry Pi 3 Model B (Cortex-A53)"}
    response = hub.enrol(second, TWO, facts=unlike)
    assert response.status_code == 409
    assert response.json()["detail"] == (
        "devices of a queue must be alike: 'one' of queue 'pi5' is 'Raspberry Pi 5 Model B (Cortex-A76)', this one is "
        "'Raspberry Pi 3 Model B (Cortex-A53)'; add it with a queue of its own, or remove that one"
    )
    registry.revoke_device(hub.desk.engine, "one")
    assert hub.enrol(second, TWO, facts=unlike).status_code == 200


def test_a_failure_is_recorded(hub: Hub):
    token = hub.add("pi")
    (key,) = hub.desk.submit("net")
    hub.enrol(token)
    hub.lease(token)
    body = {"instance": ONE, "attempt": 1, "fault": "model", "reason": "no kernel\nfor\x00 Foo"}
    assert hub.post(token, f"/v1/jobs/{key}/failure", body).json() == {"recorded": True}
    assert (hub.desk.job(key).state, hub.desk.job(key).reason) == ("failed", "no kernel for  Foo")


def test_a_second_agent_is_told_that_the_device_is_served(hub: Hub):
    token = hub.add("pi")
    hub.enrol(token)
    response = hub.enrol(token, TWO)
    assert response.status_code == 409
    assert "another agent serves 'pi'" in response.json()["detail"]
    assert hub.lease(token, TWO).status_code == 409
    hub.desk.clock.tick(LEASE_S)
    assert hub.enrol(token, TWO).status_code == 200
    assert hub.lease(token).status_code == 409  # the first has lost it


def test_the_agent_is_handed_out_as_it_is_here_and_health_needs_no_token(hub: Hub):
    assert hub.client.get("/agent.pyz").content == agent_bytes()
    assert hub.client.get("/agent.pyz.sha256").text == f"{agent_sha256()}  agent.pyz\n"
    assert hub.client.get("/v1/health").json() == {"status": "ok", "protocol": PROTOCOL}


def test_a_device_with_the_agent_of_an_older_version_is_told_in_one_line_how_to_replace_it(hub: Hub):
    token = hub.add("pi")
    gone = hub.client.get("/agent.py")
    assert (gone.status_code, gone.json()) == (410, {"detail": OLD_AGENT})
    refused = hub.enrol(token, format=PROTOCOL - 1)
    assert (refused.status_code, refused.json()) == (422, {"detail": f"body.format: {OLD_AGENT}"})
    assert "/agent.pyz" in OLD_AGENT
    assert "\n" not in OLD_AGENT


# -- access --


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_needs_a_token_and_all_wrong_ones_are_told_the_same(hub: Hub, method: str, path: str):
    revoked = hub.add("gone")
    registry.revoke_device(hub.desk.engine, "gone")
    answers = []
    for headers in (
        {},
        {"Authorization": f"Bearer {revoked}"},
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic x"},
    ):
        response = hub.client.request(method, path, headers=headers, json={} if method == "POST" else None)
        answers.append((response.status_code, response.content, response.headers["www-authenticate"]))
    assert set(answers) == {(401, answers[0][1], "Bearer")}


def test_the_hubs_log_says_who_was_refused_and_never_a_token(hub: Hub, caplog: pytest.LogCaptureFixture):
    token = hub.add("pi")
    hub.enrol(token)
    hub.enrol(token, TWO)
    hub.get("wrong-token", "/v1/models/%1Babc")
    second, wrong = (record.getMessage() for record in caplog.records if record.name == "condensery.hub")
    assert re.fullmatch("POST /v1/enrol from .*: another agent serves 'pi'; .*", second)
    assert re.fullmatch("GET /v1/models/ abc from .*: this token is unknown or revoked; .*", wrong)
    assert token not in caplog.text
    assert "wrong-token" not in caplog.text


def test_every_call_of_the_interface_is_in_the_list_above(hub: Hub):
    described = hub.app.openapi()["paths"]
    found = [
        (method.upper(), path, "security" in call)
        for path, calls in described.items()
        for method, call in calls.items()
    ]
    assert sorted((method, path) for method, path, needs_token in found if needs_token) == sorted(CALLS_DESCRIBED)
    assert {path for _, path, needs_token in found if not needs_token} == {
        "/v1/health",
        "/agent.pyz",
        "/agent.pyz.sha256",
    }


def test_one_device_never_learns_of_anothers_jobs_nor_touches_them(hub: Hub):
    mine, theirs = hub.add("one"), hub.add("two", "other")
    key, _ = hub.desk.submit("a", "shared")
    (foreign,) = hub.desk.submit("b", queue="other")
    hub.enrol(mine, ONE)
    hub.enrol(theirs, TWO)
    (job,) = hub.lease(mine, ONE).json()["jobs"]
    assert job["id"] == key
    (other,) = hub.lease(theirs, TWO, 16).json()["jobs"]
    assert other["id"] == foreign
    for name, body in (
        ("heartbeat", {"instance": ONE, "attempt": 1, "state": "measuring", "conditions": {}}),
        ("result", result_of(other)),
        ("failure", {"instance": ONE, "attempt": 1, "fault": "model", "reason": "mine now"}),
    ):
        for instance in (ONE, TWO):
            there = hub.post(mine, f"/v1/jobs/{foreign}/{name}", {**body, "instance": instance})
            nowhere = hub.post(mine, f"/v1/jobs/999/{name}", {**body, "instance": instance})
            assert (there.status_code, there.content) == (nowhere.status_code, nowhere.content)
            assert there.status_code == 404
    held = hub.get(mine, f"/v1/models/{other['model']['sha256']}")
    absent = hub.get(mine, f"/v1/models/{'0' * 64}")
    assert (held.status_code, held.content) == (absent.status_code, absent.content)
    assert held.status_code == 404
    assert hub.desk.job(foreign).state == "leased"
    assert hub.desk.events(foreign) == ["submitted", "leased"]


def test_two_devices_of_one_queue_do_not_answer_for_each_other(hub: Hub):
    first, second = hub.add("one"), hub.add("two")
    (key,) = hub.desk.submit("net")
    hub.enrol(first, ONE)
    hub.enrol(second, TWO)
    (job,) = hub.lease(first, ONE).json()["jobs"]
    assert hub.post(second, f"/v1/jobs/{key}/result", result_of(job, instance=TWO)).status_code == 404
    assert hub.get(second, f"/v1/models/{job['model']['sha256']}").status_code == 404
    assert hub.post(first, f"/v1/jobs/{key}/result", result_of(job)).json() == {"verdict": "accepted"}


def test_a_token_revoked_in_mid_job_ends_it(hub: Hub):
    token = hub.add("pi")
    (key,) = hub.desk.submit("net")
    hub.enrol(token)
    (job,) = hub.lease(token).json()["jobs"]
    registry.revoke_device(hub.desk.engine, "pi", hub.desk.clock)
    assert hub.post(token, f"/v1/jobs/{key}/result", result_of(job)).status_code == 401
    assert hub.desk.job(key).state == "waiting"
