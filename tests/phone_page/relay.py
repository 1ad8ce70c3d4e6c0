"""A relay between a browser and a server that breaks connections when a test has it do so, by bytes and not by time."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PIECE = 4096


class Relay:
    """Listens on a free port of loopback. A connection is cut when so many bytes have gone up, or down."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.cut_up: int | None = None
        self.cut_down: int | None = None
        self.cuts = 0
        self.shut = False
        """Whether the line stays dead after a cut, until a test says otherwise."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.shut and self.cuts:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                ways = [
                    asyncio.create_task(self._carry(reader, back, "cut_up")),
                    asyncio.create_task(self._carry(there, writer, "cut_down")),
                ]
                done, others = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for task in others:
                    # What has come the other way is let through, unless the line is cut.
                    task.cancel() if any(each.result() for each in done) else await asyncio.wait([task], timeout=5)
            finally:
                back.transport.abort() if self.cuts else back.close()
                writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: str) -> bool:
        """Carry bytes until they end; return whether it was this relay that ended them."""
        carried = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE):
                carried += len(data)
                most = getattr(self, limit)
                if most is not None and carried >= most:
                    # Once: the next connection is whole.
                    setattr(self, limit, None)
                    self.cuts += 1
                    return True
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        return False


@contextmanager
def relay(target: int) -> Iterator[Relay]:
    """Relay to a port of loopback, on a thread's own loop."""
    made, ready, loop = Relay(target), threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(made._serve, "127.0.0.1", 0)
        made.port = server.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.1)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()
