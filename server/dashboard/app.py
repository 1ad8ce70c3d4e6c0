"""The page's routes. All of it is read-only."""

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib import resources
from urllib.parse import parse_qs

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from featherfed.server.dashboard.gate import Gate, let_in, same
from featherfed.server.dashboard.source import NoRunError, Source

MAX_PAGES = 64
"""Open event streams; a server with more people than that before it needs another kind of page."""
MAX_LOGIN_BYTES = 4096
WRONG_TOKEN_S = 1.0
"""How long a wrong token waits for its answer."""
STATIC = resources.files("featherfed.server.dashboard") / "static"


def make_app(
    source: Source,
    *,
    token: str | None,
    hosts: set[str],
    ready: Callable[[], str | None],
    metrics: Callable[[], tuple[bytes, str]] | None,
) -> ASGIApp:
    """Return the page as an ASGI application.

    `ready()` says why the server is not ready, or None. `metrics()` returns body and content type of `/metrics`.
    """
    open_pages = 0

    async def page(request: Request) -> Response:
        return FileResponse(str(STATIC / "index.html"), headers={"Cache-Control": "no-cache"})

    async def login(request: Request) -> Response:
        if request.method == "GET" or token is None:
            return FileResponse(str(STATIC / "login.html"))
        if int(request.headers.get("content-length") or MAX_LOGIN_BYTES + 1) > MAX_LOGIN_BYTES:
            return PlainTextResponse(f"a token has at most {MAX_LOGIN_BYTES} bytes\n", 413)
        given = parse_qs((await request.body()).decode(errors="replace")).get("token", [""])[0]
        if same(given, token):
            return let_in(token)
        await asyncio.sleep(WRONG_TOKEN_S)
        return FileResponse(str(STATIC / "login.html"), 401)

    async def runs(request: Request) -> Response:
        return _json(await source.runs())

    async def events(request: Request) -> Response:
        name = request.path_params["name"]
        source.check(name)
        if open_pages >= MAX_PAGES:
            return PlainTextResponse(f"{MAX_PAGES} pages are open, and no more are served\n", 503)

        async def stream() -> AsyncIterator[bytes]:
            nonlocal open_pages
            open_pages += 1
            try:
                async for data in source.events(name):
                    yield data
            finally:
                open_pages -= 1

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def timeline(request: Request) -> Response:
        found = await source.timeline(request.path_params["name"], request.path_params["round"])
        if found is None:
            return PlainTextResponse("the lanes of that round were not kept\n", 404)
        return _json(found)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        why_not = ready()
        return PlainTextResponse("ok\n") if why_not is None else PlainTextResponse(f"{why_not}\n", 503)

    async def scrape(request: Request) -> Response:
        if metrics is None:
            return PlainTextResponse("there are metrics only where a run is served\n", 404)
        body, kind = metrics()
        return Response(body, headers={"Content-Type": kind})

    async def no_run(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"{error}\n", 404)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/login", login, methods=["GET", "POST"]),
            Route("/api/runs", runs),
            Route("/api/runs/{name}/events", events),
            Route("/api/runs/{name}/timeline/{round:int}", timeline),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", scrape),
            Mount("/static", StaticFiles(directory=str(STATIC))),
        ],
        middleware=[Middleware(Gate, token=token, hosts=hosts)],
        exception_handlers={NoRunError: no_run},
    )


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
