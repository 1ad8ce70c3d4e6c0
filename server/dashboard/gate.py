"""Who may look, and what a browser may do with the page: in front of every answer.

The page is read-only and asks nothing of anyone else. Without a token it is for this machine only, so a request that
names another host (a page elsewhere whose name was made to point to 127.0.0.1) is refused. With a token, a browser
trades it for a cookie on one form, and a scraper sends `Authorization: Bearer TOKEN`. It is never part of an address.
"""

import hmac
from collections.abc import Iterable
from hashlib import blake2b
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "featherfed"
OPEN_PATHS = {"/healthz", "/readyz", "/login", "/static/page.css"}
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Gate:
    """ASGI middleware: refuses who may not look, and adds the headers."""

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: Iterable[str]) -> None:
        """`hosts` are the names that a request may use where there is no token."""
        self._app = app
        self._token = token
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        app = self._refusal(scope) or self._app
        await app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._token is None:
            name = _host_name(headers.get("host", ""))
            if name not in self._hosts:
                return PlainTextResponse(f"this page is not at {name!r}\n", 421)
            return None
        if scope["path"] in OPEN_PATHS or self._knows_token(headers):
            return None
        if "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return PlainTextResponse(
            "the token is missing: send it as Authorization: Bearer TOKEN\n",
            401,
            {"WWW-Authenticate": "Bearer"},
        )

    def _knows_token(self, headers: Headers) -> bool:
        assert self._token is not None, "asked only where there is one"
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and same(given.strip(), self._token):
            return True
        try:
            kept = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return kept is not None and same(kept.value, cookie_value(self._token))


def same(given: str, right: str) -> bool:
    """Compare in a time that tells nothing about where they differ."""
    return hmac.compare_digest(given.encode(), right.encode())


def cookie_value(token: str) -> str:
    """Return what the browser keeps: proof of the token, not the token."""
    return blake2b(b"featherfed dashboard", key=blake2b(token.encode()).digest()).hexdigest()


def let_in(token: str) -> Response:
    """Return the answer to a right token."""
    response = RedirectResponse("/", 303)
    response.set_cookie(COOKIE, cookie_value(token), httponly=True, samesite="strict")
    return response


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1 : host.find("]")]
    return host.partition(":")[0].lower()


def hosts_of(host: str) -> set[Any]:
    """Return the names under which a page that listens on the loopback address `host` may be asked for."""
    return {host.lower(), "localhost", "127.0.0.1", "::1"}
