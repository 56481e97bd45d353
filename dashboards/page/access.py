"""Who may see the live page, and what a browser may do with it.

- On loopback everyone on this machine may look; a request must name this machine as its host, or a website could reach
  the page through a name of its own that points here (DNS rebinding).
- With a token every request must carry it: once in the address, from then on in a cookie that scripts can't read and
  other sites can't send, or as `Authorization: Bearer`.
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
    """Who may look. Without a token everyone who reaches the address, which then must be loopback."""

    token: str | None = field(default=None, repr=False)
    shown: bool = False  # the token was made for this run and is printed in the address, for no one knows it yet

    @property
    def cookie_value(self) -> str:
        """What the cookie holds: a proof of the token, not the token itself."""
        return hmac.new((self.token or "").encode(), b"condensery dashboard cookie", hashlib.sha256).hexdigest()


def access_for(host: str, token_file: Path | None = None) -> Access:
    """Return who may look at a page that listens on `host`; its token is in the file or the environment, or made now.

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
        return Access() if is_loopback(host) else Access(secrets.token_urlsafe(32), shown=True)
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise InvalidSettings(
            f"the token of {source} must be {SHORTEST_TOKEN} or more printable ASCII characters, but has {len(token)}; "
            "`openssl rand -hex 32` makes one."
        )
    return Access(token)


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
        if access.token is not None:
            return _with_token(access)
        if not is_loopback(_asked_host()):
            return sentence_page("This page answers to localhost only.", 403)
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
    name = f"condensery_{request.environ.get('SERVER_PORT', '')}"  # cookies don't tell one port from another
    if "token" in request.args:
        if request.method == "GET" and _same(request.args["token"], access.token):
            return _into_cookie(name, access)
    elif _same(request.cookies.get(name, ""), access.cookie_value):
        return None
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _same(bearer.strip(), access.token):
        return None
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.headers.get("Sec-Fetch-Mode") == "navigate":
        # A link on another site was followed, and browsers send no cookie then; from this page they do.
        return sentence_page("One moment …", 401, again_s=0)
    return sentence_page("This page needs its token: open the address that was printed when it was started.", 401)


def _into_cookie(name: str, access: Access) -> AnyResponse:
    """Return the redirection to the same address without its token, which the cookie replaces."""
    query = [(key, value) for key, value in request.args.items(multi=True) if key != "token"]
    response = redirect(request.path + (f"?{urlencode(query)}" if query else ""), 303)
    response.set_cookie(
        name,
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
