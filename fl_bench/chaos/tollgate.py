"""Between the phones and the server: counts every byte, listens, resets connections, and outlives them all."""

import asyncio
import contextlib
from collections.abc import Callable

from fl_bench.chaos.wiretap import Conversation, Witness

PIECE_BYTES = 16 * 1024


class Tollgate:
    """Relays to the server's port; `passed(total)` is told how many bytes phones have sent so far."""

    def __init__(self, witness: Witness, passed: Callable[[int], None]) -> None:
        self._witness = witness
        self._passed = passed
        self._open: dict[asyncio.StreamWriter, Conversation] = {}
        self._server: asyncio.Server | None = None
        self._target = 0
        self.up_bytes = self.down_bytes = 0
        """Bytes handed to the server's socket, and bytes taken from it."""
        self.resets = 0

    async def open(self, target: int) -> int:
        """Listen on loopback for connections to the server's port, return the port."""
        self._target = target
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def aim(self, target: int) -> None:
        """Relay new connections to another port."""
        self._target = target

    async def close(self) -> None:
        """End everything."""
        assert self._server is not None, "it was opened"
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    def reset(self, phone: str) -> None:
        """Reset the connection of a phone, if it has one."""
        for writer, conversation in self._open.items():
            if conversation.phone == phone:
                writer.transport.abort()
                self.resets += 1

    async def _relay(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            near.transport.abort()
            return
        conversation = self._open[near] = self._witness.connection()
        up = asyncio.create_task(self._pass(near_reader, far, conversation, up=True))
        down = asyncio.create_task(self._pass(far_reader, near, conversation, up=False))
        try:
            await asyncio.wait((up, down))
        finally:
            del self._open[near]
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            for writer in (near, far):
                writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, conversation: Conversation, *, up: bool
    ) -> None:
        try:
            while data := await reader.read(PIECE_BYTES):
                writer.write(data)
                if up:
                    self.up_bytes += len(data)
                    conversation.upward(data)
                    self._passed(self.up_bytes)
                else:
                    self.down_bytes += len(data)
                    conversation.downward(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            # One side is gone: the other hears of it at once, as it would without a gate.
            writer.transport.abort()
            for ours, other in self._open.items():
                if other is conversation:
                    with contextlib.suppress(OSError):
                        ours.transport.abort()
