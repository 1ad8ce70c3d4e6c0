"""Between the phones and the server: counts every byte, listens, resets connections, and outlives them all."""

import asyncio
import contextlib
from collections.abc import Callable

from lab.chaos.wiretap import Conversation, Witness

PIECE_BYTES = 16 * 1024
PART_S = 5.0


class Tollgate:
    """Relays to the server's port; `passed(total)` is told how many bytes phones have sent so far."""

    def __init__(self, witness: Witness, passed: Callable[[int], None]) -> None:
        self._witness = witness
        self._passed = passed
        self._open: dict[asyncio.Task[None], Conversation] = {}
        self._server: asyncio.Server | None = None
        self._target = 0
        self.up_bytes = self.down_bytes = 0
        """Bytes handed to the server's socket, and bytes taken from it."""
        self.resets = 0

    async def open(self, target: int) -> int:
        """Listen on loopback for connections to the server's port, return the port."""
        self._target = target
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def aim(self, target: int) -> None:
        """Relay new connections to another port."""
        self._target = target

    async def close(self) -> None:
        """End everything."""
        if self._server is None:
            return
        loop = asyncio.get_running_loop()
        for listener in self._server.sockets:
            loop.remove_reader(listener)
        # Who was accepted just now is met in the loop's next turns: a server that is closed before loses its socket.
        for _ in range(2):
            await asyncio.sleep(0)
        self._server.close()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        # What was aborted is closed in the next turn.
        await asyncio.sleep(0)

    def reset(self, phone: str) -> None:
        """Break the connection of a phone, if it has one: a reset for the phone, an early end for the server."""
        for task, conversation in list(self._open.items()):
            if conversation.phone == phone:
                task.cancel()
                self.resets += 1

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = self._witness.connection()
        task = asyncio.create_task(self._relay(reader, writer, conversation))
        self._open[task] = conversation
        task.add_done_callback(self._open.pop)
        # Here, because a task that is cancelled before its first step does nothing at all.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _relay(
        self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter, conversation: Conversation
    ) -> None:
        far, ways = None, []
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target)
            far.transport.set_write_buffer_limits(0)
            ways = [
                asyncio.create_task(self._pass(near_reader, far, conversation, up=True)),
                asyncio.create_task(self._pass(far_reader, near, conversation, up=False)),
            ]
            # An end of stream is passed on; where one way fails, both do.
            await asyncio.gather(*ways)
        except OSError:
            pass
        finally:
            for way in ways:
                way.cancel()
            try:
                await asyncio.gather(*ways, return_exceptions=True)
            finally:
                # A phone that is back already may be reset again while its old connection parts.
                near.transport.abort()
                if far is not None:
                    await _part(far_reader, far)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, conversation: Conversation, *, up: bool
    ) -> None:
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


async def _part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let what was carried arrive, and then the end in the middle of whatever it was.

    Closed with answers unread, the kernel would reset the connection, and the server lose what it had not read yet.
    """
    try:
        with contextlib.suppress(OSError, TimeoutError):
            writer.write_eof()
            async with asyncio.timeout(PART_S):
                while await reader.read(PIECE_BYTES):
                    pass
    finally:
        writer.transport.abort()
