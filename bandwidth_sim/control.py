"""A control port on loopback: look at links, and change them while they run.

`GET /links` answers all links with their counters. `POST /links/NAME` takes a JSON object: the keys of a profile in
TOML (`up`, `down`, `rtt`, …, text with units), `rate` for both directions, or `"end": "reset"` for what is open now;
`"off": true` lets nothing pass and `"off": false` undoes it.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from featherfed.bandwidth_sim.drop import ENDINGS
from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.profile import Profile, apply_settings
from featherfed.bandwidth_sim.relay import PhoneLink

MAX_BODY_BYTES = 64 * 1024
_LENGTH = re.compile(r"[0-9]{1,9}")
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large"}


def describe(link: PhoneLink) -> dict[str, Any]:
    """Return a link's settings and counters, ready for JSON."""
    return {
        "profile": link.profile.name,
        "source": link.profile.source,
        "connections": link.open_connections,
        **{
            name: {
                "rate_bytes_per_s": lane.link.spec.rate_bytes_per_s,
                "delay_s": lane.link.spec.delay_s,
                "jitter_s": lane.link.spec.jitter_s,
                "loss": lane.link.spec.loss,
                "counters": asdict(lane.counters),
            }
            for name, lane in (("up", link.up), ("down", link.down))
        },
    }


class Control:
    """The HTTP control port over named links."""

    def __init__(self, links: Mapping[str, PhoneLink]) -> None:
        self._links = links
        self._before_off: dict[str, Profile] = {}
        self._server: asyncio.Server | None = None

    async def listen(self, port: int) -> int:
        """Listen on loopback; port 0 picks one. Returns the port; raises OSError where it is taken."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=MAX_BODY_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            status, answer = await self._answer(reader)
            body = json.dumps(answer).encode()
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Whatever happens on one connection to this port ends that connection.
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, object]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        words = head[0].split()
        if len(words) != 3:
            return 400, {"error": "not an HTTP request"}
        headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:])}
        if "host" in headers and headers["host"].rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            # A web page that resolved its own name to loopback must not steer the link.
            return 400, {"error": "the control port answers only to 127.0.0.1 and localhost"}
        length = headers.get("content-length", "0")
        if not _LENGTH.fullmatch(length) or int(length) > MAX_BODY_BYTES:
            return 413, {"error": f"a body holds at most {MAX_BODY_BYTES} bytes"}
        body = await reader.readexactly(int(length))
        return self.handle(words[0], words[1], body)

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """Answer one request with a status and what becomes its JSON body."""
        root, _, name = path.strip("/").partition("/")
        if root != "links" or (name and name not in self._links):
            return 404, {"error": f"no {path}: the links are {', '.join(self._links)}"}
        if method == "GET":
            shown = {key: describe(link) for key, link in self._links.items()}
            return 200, shown[name] if name else shown
        if method != "POST" or not name:
            return 405, {"error": "GET /links, GET /links/NAME or POST /links/NAME"}
        try:
            settings = json.loads(body)
            self._change(name, settings)
        except (LinkConfigError, ValueError, RecursionError) as error:  # of JSON: what it cannot read, or so deep
            return 400, {"error": str(error)}
        return 200, describe(self._links[name])

    def _change(self, name: str, settings: object) -> None:
        if not isinstance(settings, dict):
            raise LinkConfigError('the body must be a JSON object like {"rate": "64kbps"}')
        settings = dict(settings)
        link = self._links[name]
        end, off, rate = (settings.pop(key, None) for key in ("end", "off", "rate"))
        wrong = next((key for key, value in settings.items() if not isinstance(value, str)), None)
        if wrong is not None or not isinstance(rate, str | None):
            raise LinkConfigError(f'{wrong or "rate"} must be text with a unit like "64kbps"')
        if not isinstance(off, bool | None):
            raise LinkConfigError("off must be true or false")
        if end is not None and end not in ENDINGS:
            raise LinkConfigError(f"end must be one of {', '.join(ENDINGS)}")
        base = self._before_off.get(name, link.profile)
        changed = apply_settings(base, ({} if rate is None else {"up": rate, "down": rate}) | settings)
        if off is True or (off is None and name in self._before_off):
            self._before_off[name] = changed
            up = replace(changed.up, trace=None, rate_bytes_per_s=0.0)
            changed = replace(changed, up=up, down=replace(changed.down, trace=None, rate_bytes_per_s=0.0))
        else:
            self._before_off.pop(name, None)
        link.change(changed)
        if end is not None:
            link.end(end)
