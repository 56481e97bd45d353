"""Who may see the live page, who may write through it, and what a browser may do with it.

- On loopback everyone on this machine may look; a request must name this machine as its host, or a website could reach
  the page through a name of its own that points here (DNS rebinding). Who wants to write must bring the token that was
  made for this run.
- With a token of the user's own, or on a network, every request must carry it: once in the address, from then on in a
  cookie that scripts can't read and other sites can't send, or as `Authorization: Bearer`.
- Every response forbids frames, foreign scripts and requests elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from flask import Flask, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from space.errors import InvalidSettings
from workers.listening import is_loopback

TOKEN = "CONDENSERY_DASHBOARD_TOKEN"  # in the environment
SHORTEST_TOKEN = 16
COOKIE_S = 30 * 24 * 3600
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_STYLE = "font: 1.1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 15vh auto; padding: 0 1rem"


@dataclass(frozen=True)
class Access:
    """Who may look, and who may write. Without a token everyone on this machine may look, and no one may write."""

    token: str | None = field(default=None, repr=False)
    shown: bool = False  # the token was made for this run and is printed in the address, for no one knows it yet
    looking_is_free: bool = False  # everyone on this machine may look without the token, which then is for writing
    read_only: bool = False  # no one may write, token or not

    @property
    def may_be_written(self) -> bool:
        """Whether the page has anything that writes."""
        return self.token is not None and not self.read_only

    @property
    def cookie_value(self) -> str:
        """What the cookie holds: a proof of the token, not the token itself."""
        return hmac.new((self.token or "").encode(), b"condensery dashboard cookie", hashlib.sha256).hexdigest()


def access_for(host: str, token_file: Path | None = None, read_only: bool = False) -> Access:
    """Return who may look at a page that listens on `host`, and who may write unless it is `read_only`.

    Its token is in the file or the environment, or made now.

    Raises:
        InvalidSettings: the token's file can't be read, or the token is too short to be one.
    """
    token, source = os.environ.get(TOKEN) or None, TOKEN
    if token_file is not None:
        source = str(token_file)
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSettings(f"--token-file {token_file} can't be read ({error}); name a text file.") from None
    if token is None:
        if is_loopback(host) and read_only:
            return Access(read_only=True)
        made = secrets.token_urlsafe(32)
        return Access(made, shown=True, looking_is_free=is_loopback(host), read_only=read_only)
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise InvalidSettings(
            f"the token of {source} must be {SHORTEST_TOKEN} or more printable ASCII characters, but has {len(token)}; "
            "`openssl rand -hex 32` makes one."
        )
    return Access(token, read_only=read_only)


def guard(server: Flask, access: Access, script_hashes: list[str]) -> None:
    """Refuse everyone who may not look, and put the headers on every response.

    Args:
        server: of the page; handlers that are registered before this one run before it.
        access: who may look.
        script_hashes: of the inline scripts that may run; they may be added until the first request.
    """

    @server.before_request
    def _let_in() -> AnyResponse | None:
        if request.method != "GET" and request.headers.get("Sec-Fetch-Site", "same-origin") == "cross-site":
            return sentence_page("Another website may not ask this page for anything.", 403)
        if access.token is not None and not access.looking_is_free:
            return _with_token(access)
        if not is_loopback(_asked_host()):
            return sentence_page("This page answers to localhost only.", 403)
        if access.token is not None and request.method == "GET" and "token" in request.args:
            return _into_cookie(access, _same(request.args["token"], access.token))
        return None

    @server.after_request
    def _secure(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Content-Security-Policy", _policy(script_hashes))
        if not response.cache_control.max_age:
            response.headers["Cache-Control"] = "no-store"
        return response


def _policy(script_hashes: list[str]) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            # 'unsafe-eval': Plotly compiles its WebGL code from text; of inline scripts only Dash's own may run
            " ".join(("script-src 'self' 'unsafe-eval'", *script_hashes)),
            "style-src 'self' 'unsafe-inline'",  # Plotly and the table write their style sheets into the page
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def _asked_host() -> str:
    try:
        return urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""


def _with_token(access: Access) -> AnyResponse | None:
    """Let in requests that bring the token; a token in the address moves into the cookie."""
    assert access.token is not None
    if "token" in request.args:
        if request.method == "GET" and _same(request.args["token"], access.token):
            return _into_cookie(access)
        if brings_bearer(access):
            return None
    elif brings_token(access):
        return None
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.headers.get("Sec-Fetch-Mode") == "navigate":
        # A link on another site was followed, and browsers send no cookie then; from this page they do.
        return sentence_page("One moment …", 401, again_s=0)
    return sentence_page("This page needs its token: open the address that was printed when it was started.", 401)


def brings_token(access: Access) -> bool:
    """Return whether the request brings the token, in its cookie or as a program does."""
    if access.token is None:
        return False
    return _same(request.cookies.get(_cookie_name(), ""), access.cookie_value) or brings_bearer(access)


def brings_bearer(access: Access) -> bool:
    """Return whether the request brings the token as a program does, and no website can make a browser do."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    return access.token is not None and scheme.lower() == "bearer" and _same(bearer.strip(), access.token)


def _cookie_name() -> str:
    return f"condensery_{request.environ.get('SERVER_PORT', '')}"  # cookies don't tell one port from another


def _into_cookie(access: Access, is_right: bool = True) -> AnyResponse:
    """Return the redirection to the same address without its token; the cookie replaces one that is right."""
    query = [(key, value) for key, value in request.args.items(multi=True) if key != "token"]
    path = "/" + request.path.lstrip("/\\")  # two slashes would lead to another host
    response = redirect(path + (f"?{urlencode(query)}" if query else ""), 303)
    if not is_right:
        return response
    response.set_cookie(
        _cookie_name(),
        access.cookie_value,
        max_age=COOKIE_S,
        httponly=True,
        samesite="Strict",
        secure="https" in (request.scheme, request.headers.get("X-Forwarded-Proto")),
    )
    return response


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def sentence_page(text: str, status: int, again_s: int | None = None) -> Response:
    """Return a page of one sentence; with `again_s` the browser reloads it after so many seconds."""
    refresh = "" if again_s is None else f'<meta http-equiv="refresh" content="{again_s}">'
    body = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Condensery</title>{refresh}'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"></head>'
        f'<body style="{_STYLE}"><main><p>{html.escape(text)}</p></main></body></html>'
    )
    return Response(body, status, mimetype="text/html")
