"""What browsers are served at the address where phones come in: a page, its model in words, and digits to play with.

It is the socket of the phones, so that one port, one certificate and one door are for both, and the page speaks to
nobody but the server that it came from.
"""

import gzip
import http
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

STATIC = resources.files("featherfed.server.phone_page") / "static"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/phone/page.css": ("page.css", "text/css; charset=utf-8"),
    "/phone/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/phone/worker.js": ("worker.js", "text/javascript; charset=utf-8"),
    "/phone/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,260}")
_DIGITS = re.compile(r"/phone/digits/([0-9]{1,9})")
Digits = Callable[[int], bytes]


class Site:
    """Answers the plain GETs of browsers.

    `model` is what `featherfed.learning.chain` says of the run's, or `{"cannot": sentence}`. `digits(shard)` returns a
    shard of the bundled ones, None where the run is of others. `hosts` are the names under which the page may be asked
    for, None any: where no token is needed, a page elsewhere whose name was made to point here must get nothing.
    """

    def __init__(
        self, model: dict[str, Any], digits: Digits | None, *, shards: int, hosts: frozenset[str] | None, tls: bool
    ) -> None:
        self._model = msgspec.json.encode(model)
        self._digits, self._shards, self._hosts = digits, shards, hosts
        self._scheme = "wss" if tls else "ws"
        # Elsewhere browsers ignore the header, and complain of it.
        self._secure = tls or hosts is not None
        self._files = {path: ((STATIC / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}

    def answer(self, request: Request, *, allowed: bool) -> Response:
        """Answer a GET. The page itself is for everybody: it has the token that opens the rest."""
        host = _said(request, "Host")
        if not self._known(host):
            return _response(http.HTTPStatus.MISDIRECTED_REQUEST, f"this page is not at {host!r}\n".encode())
        path = request.path.partition("?")[0]
        if path in self._files:
            body, kind = self._files[path]
            return self._page(request, body, kind)
        if not path.startswith("/phone/"):
            return _response(http.HTTPStatus.NOT_FOUND, b"there is nothing here; the page is at /\n")
        if not allowed:
            sentence = (
                b"this address has no token, or one that opens nothing here; ask who runs the server for another\n"
            )
            return _response(http.HTTPStatus.UNAUTHORIZED, sentence)
        if path == "/phone/model.json":
            return self._page(request, self._model, "application/json")
        match = _DIGITS.fullmatch(path)
        if match is None or self._digits is None or int(match[1]) >= self._shards:
            return _response(http.HTTPStatus.NOT_FOUND, b"this run has no such shard of digits\n")
        return self._page(request, self._digits(int(match[1])), "application/octet-stream")

    def turned_away(self, request: Request) -> str | None:
        """Return why a browser may open no WebSocket: it asks for a page of another server."""
        origin, host = _said(request, "Origin"), _said(request, "Host")
        if "Origin" not in request.headers:
            return None
        if origin.partition("://")[2] != host or not self._known(host):
            return f"a page of {origin[:80]} may not speak for this browser"
        return None

    def _known(self, host: str) -> bool:
        name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
        return self._hosts is None or (_HOST.fullmatch(host) is not None and name.lower() in self._hosts)

    def _page(self, request: Request, body: bytes, kind: str) -> Response:
        host = _said(request, "Host")
        # Browsers that know `self` for http and https alone need the socket by its own name; an IPv6 address is none
        # that the policy's grammar has, and browsers complain of it.
        named = _HOST.fullmatch(host) and not host.startswith("[")
        socket = f" {self._scheme}://{host}" if named else ""
        headers = {
            "Content-Security-Policy": (
                "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self';"
                f" connect-src 'self'{socket}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "Content-Type": kind,
            **({"Cross-Origin-Opener-Policy": "same-origin"} if self._secure else {}),
        }
        if len(body) > 1024 and "gzip" in _said(request, "Accept-Encoding"):
            body = gzip.compress(body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return _response(http.HTTPStatus.OK, body, headers)


def _said(request: Request, name: str) -> str:
    """Return what a header says; one that comes more than once is a list, which no host and no origin is."""
    return ", ".join(request.headers.get_all(name))


def _response(status: http.HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> Response:
    said = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        **(headers or {}),
    }
    return Response(status.value, status.phrase, Headers(said), body)
