"""Who may look at the live page, and what its answers forbid a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dashboards.page import Access, access_for, make_app
from space.errors import DatabaseUnavailable, InvalidSettings, StudyNotFound
from tests.dashboards.studies import Study, lively

TOKEN = "correct-horse-battery"
LOCAL = {"Host": "127.0.0.1:8050"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return lively(tmp_path_factory.mktemp("lively"))


def client(study: Study, access: Access | None = None, name: str | None = None) -> Any:
    return make_app(f"sqlite:///{study.folder / 'study.db'}", name, access).server.test_client(use_cookies=False)


@pytest.fixture(scope="module")
def open_page(study: Study) -> Any:
    return client(study)


@pytest.fixture
def closed_page(study: Study) -> Any:
    return client(study, Access(TOKEN))


@pytest.mark.parametrize("host", ["localhost:8050", "127.0.0.1", "[::1]:8050", "127.0.0.2:1"])
def test_without_a_token_this_machine_is_answered(open_page: Any, host: str) -> None:
    assert open_page.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8050", "127.0.0.1.evil.example", "", "[::2]", "a@b:c"])
def test_without_a_token_another_host_name_is_refused(open_page: Any, host: str) -> None:
    for path in ("/", "/rows", "/_dash-layout", "/assets/page.js", "/news"):
        answer = open_page.get(path, headers={"Host": host})
        assert answer.status_code == 403, path
        assert b"localhost only" in answer.data


@pytest.mark.parametrize(
    "path",
    ["/", "/rows", "/trials.csv", "/news", "/chart-table/front", "/bundle/0.zip", "/_dash-layout", "/assets/page.js"],
)
def test_with_a_token_nothing_is_answered_without_it(closed_page: Any, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Cookie": "x=y"}):
        answer = closed_page.get(path, headers={**LOCAL, **headers})
        assert answer.status_code == 401
        assert b"needs its token" in answer.data
        assert TOKEN.encode() not in answer.data
    assert closed_page.get(f"{path}?token=wrong", headers=LOCAL).status_code == 401


def test_the_token_in_the_address_moves_into_a_cookie_that_scripts_and_other_sites_dont_have(closed_page: Any) -> None:
    answer = closed_page.get(f"/?axis=macs&token={TOKEN}&trials=1,2", headers=LOCAL)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/?axis=macs&trials=1%2C2"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    kept = cookie.partition(";")[0]
    for host in ("localhost", "anything.example"):  # a proxy may call this machine what it likes
        assert closed_page.get("/rows", headers={"Host": host, "Cookie": kept}).status_code == 200


def test_behind_tls_the_cookie_never_travels_without_it(closed_page: Any) -> None:
    answer = closed_page.get(f"/?token={TOKEN}", headers={**LOCAL, "X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers["Set-Cookie"]


def test_the_token_may_come_as_a_bearers(closed_page: Any) -> None:
    assert closed_page.get("/rows", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_link_followed_from_another_site_is_asked_for_once_more_so_that_the_cookie_comes_along(
    closed_page: Any,
) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert b'http-equiv="refresh"' in closed_page.get("/", headers={**LOCAL, **followed}).data
    again = closed_page.get("/", headers={**LOCAL, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"})
    assert again.status_code == 401
    assert b"refresh" not in again.data


def test_another_website_cant_post(open_page: Any) -> None:
    answer = open_page.post("/_dash-update-component", headers={**LOCAL, "Sec-Fetch-Site": "cross-site"}, json={})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "path", ["/", "/rows", "/nowhere", "/_dash-layout", "/assets/condensery.css", "/bundle/99.zip"]
)
def test_every_answer_forbids_frames_foreign_content_and_guessing_types(open_page: Any, path: str) -> None:
    with open_page.get(path, headers=LOCAL) as answer:
        headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_a_page_opened_to_a_network_has_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CONDENSERY_DASHBOARD_TOKEN", raising=False)
    for host in ("127.0.0.1", "localhost", "::1"):
        assert access_for(host).looking_is_free
        assert access_for(host).may_be_written
        assert access_for(host, read_only=True) == Access(read_only=True)
    made = access_for("0.0.0.0")
    assert made.shown
    assert not made.looking_is_free
    assert not access_for("0.0.0.0", read_only=True).may_be_written
    assert len(made.token or "") >= 32
    assert made.token != access_for("0.0.0.0").token
    assert made.token not in repr(made)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert access_for("127.0.0.1", file) == access_for("0.0.0.0", file) == Access(TOKEN)
    monkeypatch.setenv("CONDENSERY_DASHBOARD_TOKEN", TOKEN[::-1])
    assert access_for("pi.local") == Access(TOKEN[::-1])
    assert access_for("pi.local", file) == Access(TOKEN)


@pytest.mark.parametrize(("text", "says"), [("short", "16 or more"), ("", "16 or more"), ("ü" * 20, "ASCII")])
def test_a_token_that_is_none_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(InvalidSettings, match=says):
        access_for("0.0.0.0", file)
    with pytest.raises(InvalidSettings, match="can't be read"):
        access_for("0.0.0.0", tmp_path / "none")


def test_a_study_or_a_database_that_isnt_there_is_refused_at_the_start(study: Study, tmp_path: Path) -> None:
    with pytest.raises(StudyNotFound, match="Did you mean 'digits-small'"):
        client(study, name="digit-smal")
    with pytest.raises(DatabaseUnavailable):
        make_app(f"sqlite:///{tmp_path / 'none.db'}")
