"""Phones that only send: many connections in one process, each a parser of a few lines: the server is the limit.

Started as a process of its own; it is told what to do, and tells what was done, by one line of JSON each. They speak
the protocol as `fl-edge` does (docs/PROTOCOL.md) and answer each task with the same payload, which they are given.
"""

import asyncio
import base64
import json
import os
import sys
import time
from typing import Any

from featherfed.wire.chunking import BEHIND_UP_BYTES
from featherfed.wire.messages import (
    NOTHING,
    PROTOCOL_VERSION,
    Accepted,
    Finish,
    Hello,
    ModelBegin,
    ModelChunk,
    Task,
    UpdateBegin,
    UpdateChunk,
    Welcome,
    WholeModel,
    WholeUpdate,
    digest_of,
    pack,
    unpack,
)

BINARY, CLOSE, PING, PONG = 0x2, 0x8, 0x9, 0xA
MAX_ORDER_BYTES = 1 << 28
"""An order holds the payload."""


def frame(opcode: int, data: bytes) -> bytes:
    """Return one masked frame. The mask is zero, as RFC 6455 allows: whoever unmasks it does the same work."""
    length = len(data)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    elif length < 1 << 16:
        head = bytes((0x80 | opcode, 0xFE)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + length.to_bytes(8, "big")
    return head + bytes(4) + data


class Socket(asyncio.Protocol):
    """A WebSocket client that gives whole frames to `got`."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._buffer = bytearray()
        self._upgraded = False
        self.failed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET / HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Cut frames from what came."""
        buffer = self._buffer
        buffer += data
        if not self._upgraded:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if not buffer.startswith(b"HTTP/1.1 101 "):
                self.failed = bytes(buffer[:200]).decode(errors="replace")
                self.transport.close()
                return
            del buffer[: end + 4]
            self._upgraded = True
            self.opened()
        start = 0
        while len(buffer) - start >= 2:
            length, body = buffer[start + 1], start + 2
            if length >= 126:
                size = 2 if length == 126 else 8
                if len(buffer) < body + size:
                    break
                length, body = int.from_bytes(buffer[body : body + size], "big"), body + size
            if len(buffer) < body + length:
                break
            opcode, whole = buffer[start] & 0xF, bytes(buffer[body : body + length])
            start = body + length
            if opcode == PING:
                self.transport.write(frame(PONG, whole))
            elif opcode == CLOSE:
                self.closing(whole)
                self.transport.close()
            else:
                self.got(whole)
        del buffer[:start]

    def opened(self) -> None:
        """Do what comes first."""

    def closing(self, data: bytes) -> None:
        """Note the code and reason of the other end's close."""
        if data[:2] != (1000).to_bytes(2, "big"):
            self.failed = f"closed: {int.from_bytes(data[:2], 'big')} {data[2:].decode(errors='replace')}"

    def got(self, data: bytes) -> None:
        """Take one message."""


class Tally:
    """Counts to the number of phones, again and again: a phone may be a lap ahead of another."""

    def __init__(self, lap: int) -> None:
        self._lap = lap
        self._count = self._taken = 0
        self._changed = asyncio.Event()

    def one(self) -> None:
        """Count one."""
        self._count += 1
        self._changed.set()

    async def lap(self) -> None:
        """Return when one more lap is complete."""
        self._taken += self._lap
        while self._count < self._taken:
            self._changed.clear()
            await self._changed.wait()


class Group:
    """What the connections of this process have in common."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.armed, self.answered = Tally(order["count"]), Tally(order["count"])
        self.waits_s: list[float] = []
        """From each update's first byte to its Accepted."""


class SendingPhone(Socket):
    """Joins; holds its answer to each task until it is told to go."""

    def __init__(self, group: Group, number: int, payload: bytes) -> None:
        super().__init__(f"{group.order['host']}:{group.order['port']}")
        self._group, self._number, self._payload = group, number, payload
        self._digest = digest_of(payload)
        self._round, self._left, self._draws = NOTHING, 0, False
        self._went_s = 0.0
        self.welcomed = asyncio.get_running_loop().create_future()

    def opened(self) -> None:
        """Say Hello."""
        hello = Hello(PROTOCOL_VERSION, f"phone-{self._number}", self._number, self._group.order["phones"])
        self.transport.write(frame(BINARY, pack(hello)))

    def got(self, data: bytes) -> None:
        """Follow the server's messages."""
        message = unpack(data)
        if isinstance(message, Task):
            self._round = message.round
            if self._draws and message.version == 0:
                self._receive(0)
        elif isinstance(message, ModelBegin):
            self._receive(sum(message.lengths) - len(message.data))
        elif isinstance(message, WholeModel):
            self._round = message.task().round
            self._receive(0)
        elif isinstance(message, ModelChunk):
            self._receive(self._left - len(message.data))
        elif isinstance(message, Accepted):
            self._group.waits_s.append(time.perf_counter() - self._went_s)
            self._group.answered.one()
        elif isinstance(message, Welcome):
            # It is believed to have drawn version 0; noise needs none.
            self._draws = bool(message.initial)
            self.welcomed.set_result(None)
        elif isinstance(message, Finish):
            self.transport.close()

    def _receive(self, left: int) -> None:
        self._left = left
        if not left:
            self._group.armed.one()

    def go(self) -> None:
        """Send the update of the round."""
        self._went_s = time.perf_counter()
        payload, first = self._payload, self._payload[:BEHIND_UP_BYTES]
        begin: UpdateBegin | WholeUpdate = UpdateBegin(self._round, len(payload), self._digest, 1, 0, first)
        if len(first) == len(payload):
            begin = WholeUpdate(self._round, payload, 1)
        frames = [frame(BINARY, pack(begin))]
        for offset in range(len(first), len(payload), BEHIND_UP_BYTES):
            frames.append(frame(BINARY, pack(UpdateChunk(offset, payload[offset : offset + BEHIND_UP_BYTES]))))
        self.transport.writelines(frames)

    def connection_lost(self, error: Exception | None) -> None:
        """Wake whoever waits for a Welcome that will not come."""
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionError(self.failed or f"the connection was lost: {error}"))


class EchoPhone(Socket):
    """Sends a message, waits until it is back, and again."""

    def __init__(self, group: Group, message: bytes) -> None:
        super().__init__(f"{group.order['host']}:{group.order['port']}")
        self._group, self._frame, self._left = group, frame(BINARY, message), 0
        self.welcomed = asyncio.get_running_loop().create_future()

    def opened(self) -> None:
        """Be ready."""
        self.welcomed.set_result(None)

    def go(self, times: int) -> None:
        """Send the first of so many."""
        self._left = times
        self.transport.write(self._frame)

    def got(self, data: bytes) -> None:
        """Send the next."""
        self._left -= 1
        if self._left:
            self.transport.write(self._frame)
        else:
            self._group.answered.one()


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def _play(order: dict[str, Any], orders: asyncio.StreamReader) -> None:
    loop = asyncio.get_running_loop()
    group = Group(order)
    payload = bytes(order["echo_bytes"]) if "echo_bytes" in order else base64.b64decode(order["payload"])
    phones: list[Any] = []
    gate = asyncio.Semaphore(order["at_once"])

    async def join(number: int) -> None:
        async with gate:
            phone = EchoPhone(group, payload) if "echo_bytes" in order else SendingPhone(group, number, payload)
            phones.append(phone)
            await loop.create_connection(lambda: phone, order["host"], order["port"])
            await phone.welcomed

    await asyncio.gather(*(join(number) for number in range(order["first"], order["first"] + order["count"])))
    _say(connected=len(phones), payload_bytes=len(payload))
    while line := await orders.readline():
        told = json.loads(line)
        for number in range(told.get("rounds", 0)):
            await group.armed.lap()
            _say(armed=number)
            await orders.readline()
            group.waits_s.clear()
            for place, phone in enumerate(phones):
                # One after the other over so many seconds, or all at once.
                loop.call_later(told.get("within_s", 0.0) * place / len(phones), phone.go)
            await group.answered.lap()
            waits_s = sorted(group.waits_s)
            _say(done=number, wait_p50_s=waits_s[len(waits_s) // 2], wait_most_s=waits_s[-1])
        if "echo" in told:
            for phone in phones:
                phone.go(told["echo"])
            await group.answered.lap()
            _say(done=0)
    for phone in phones:
        phone.transport.abort()


async def _main() -> None:
    orders = asyncio.StreamReader(limit=MAX_ORDER_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    order = json.loads(await orders.readline())
    try:
        await _play(order, orders)
    except OSError as error:
        _say(error=str(error))


if __name__ == "__main__":
    asyncio.run(_main())
