"""The page's socket, and uvicorn on the run's own event loop.

On the loop, not in a thread: the page reads what the loop writes, so nothing needs a lock, and both would share one
interpreter anyway. What it costs a round is measured in docs/DASHBOARD.md.
"""

import asyncio
import contextlib
import errno
import ipaddress
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from featherfed.commandline.signals import stopping
from featherfed.errors import ConfigError
from featherfed.server.config import RunConfig
from featherfed.server.dashboard.app import make_app
from featherfed.server.dashboard.gate import hosts_of
from featherfed.server.dashboard.live import LiveRun, ServedSockets
from featherfed.server.dashboard.metrics import Metrics
from featherfed.server.dashboard.scene import Scene
from featherfed.server.dashboard.stored import StoredRuns, about, read_snapshot
from featherfed.server.dashboard.sums import Sums
from featherfed.server.model.aggregation import Aggregator
from featherfed.server.service import Service
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.store import Store
from featherfed.wire.address import is_host

_PORT = re.compile(r"[0-9]{1,5}")
READY_PHASES = ("gathering", "open", "closing")


@dataclass(frozen=True, slots=True)
class Where:
    """A bound socket and who may ask there."""

    sock: socket.socket
    url: str
    token: str | None
    hosts: set[str]
    note: str | None
    """What the operator should know about the address."""

    @property
    def line(self) -> str:
        """The line that says where the page is."""
        return f"the page is on {self.url}" + (f" ({self.note})" if self.note else "")


def parse_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT; raises `ConfigError`."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (is_host(host) and _PORT.fullmatch(port) and int(port) < 65536):
        raise ConfigError(f"--dashboard {text!r} is not HOST:PORT, like 127.0.0.1:8080")
    return host, int(port)


def open_socket(address: str, token: str | None) -> Where:
    """Listen on HOST:PORT, or on a free port where that one is taken; raises `ConfigError` where neither works."""
    host, port = parse_address(address)
    if token is not None and not (token.isascii() and token.isprintable() and 8 <= len(token) <= 256):
        raise ConfigError("--dashboard-token needs 8 to 256 printable ASCII characters")
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        loopback = ipaddress.ip_address(where[0]).is_loopback
    except (OSError, ValueError) as error:
        raise ConfigError(f"--dashboard {address}: {host} is no address of this machine") from error
    if token is None and not loopback:
        raise ConfigError(f"--dashboard {address} can be reached by others: protect it with --dashboard-token")
    note = None
    try:
        sock = _listen(family, where)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(f"--dashboard {address}: {error.strerror}; choose another, or --no-dashboard") from error
        sock = _listen(family, (where[0], 0, *where[2:]))
        note = f"port {port} is taken"
    bound = sock.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    return Where(sock, f"http://{shown}:{bound}/", token, hosts_of(host), note)


def _listen(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # At once: two sockets may bind one port as long as neither listens.
        sock.listen(64)
    except OSError:
        sock.close()
        raise
    return sock


class _Server(uvicorn.Server):
    """uvicorn, whose signals are the run's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: ASGIApp) -> _Server:
    # Its warnings are of what strangers send, a line each on the run's terminal; its errors are faults of the page.
    return _Server(
        uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", log_config=None, log_level="error", access_log=False,
            server_header=False, timeout_graceful_shutdown=1, timeout_keep_alive=30,
        )
    )  # fmt: skip


def make_scene(
    service: Service,
    config: RunConfig,
    folder: RunFolder,
    store: Store,
    aggregator: Aggregator,
) -> Scene:
    """Return the scene of a run that is about to be served; blocks."""
    past = read_snapshot(folder, config, store)
    return Scene(
        config,
        about(folder, config, past.about.parameters, aggregator.measures, live=True),
        Sums(service.ledger),
        ServedSockets(service),
        expected_bytes=aggregator.sum.theory_bytes,
        past=past,
    )


@contextlib.asynccontextmanager
async def open_page(where: Where, scene: Scene, count: Callable[[], None], folder: Path) -> AsyncIterator[None]:
    """Serve the page of a run inside this context; `count` brings its ledger up to date.

    A page that breaks says so and never ends the run.
    """
    live = LiveRun(scene, folder, count)

    def ready() -> str | None:
        return None if scene.phase in READY_PHASES else f"the run is {scene.phase}"

    app = make_app(live, token=where.token, hosts=where.hosts, ready=ready, metrics=Metrics(scene).render)
    server = _server(app)
    tasks = [asyncio.create_task(live.run()), asyncio.create_task(server.serve([where.sock]))]

    def done(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            print(f"the page has stopped: {type(error).__name__}: {error}", file=sys.stderr)

    for task in tasks:
        task.add_done_callback(done)
    try:
        yield
    finally:
        tasks[0].cancel()
        with contextlib.suppress(OSError):
            live.close()
        server.should_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)


def serve_stored(runs: Path, address: str, token: str | None, say: Callable[[str], None]) -> None:
    """Serve the page of the runs in a folder until Ctrl-C."""
    source = StoredRuns(runs)
    where = open_socket(address, token)
    app = make_app(source, token=token, hosts=where.hosts, ready=lambda: None, metrics=None)
    server = _server(app)

    def stop() -> None:
        source.close()
        server.should_exit = True

    async def serve() -> None:
        with stopping(stop):
            say(where.line)
            await server.serve([where.sock])

    asyncio.run(serve())
