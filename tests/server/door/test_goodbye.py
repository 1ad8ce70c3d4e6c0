"""The end of a connection whose phone has sent more than anybody has read."""

import asyncio
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from featherfed.server.door.guarded_connection import GuardedConnection


async def test_answer_to_a_close_is_heard_behind_messages_that_nobody_reads() -> None:
    ended: asyncio.Future[GuardedConnection] = asyncio.get_running_loop().create_future()
    sent = asyncio.Event()

    async def leave(websocket: ServerConnection) -> None:
        assert isinstance(websocket, GuardedConnection)
        await sent.wait()
        while not websocket.recv_messages.paused:
            await asyncio.sleep(0.001)
        waiting = len(websocket.recv_messages.frames)
        await websocket.close(1001)
        assert len(websocket.recv_messages.frames) == waiting, "no more is kept of what comes"
        ended.set_result(websocket)

    async with (
        serve(leave, "127.0.0.1", 0, create_connection=GuardedConnection, max_queue=2, compression=None) as server,
        connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", compression=None, proxy=None) as phone,
    ):
        for _ in range(20):
            await phone.send(bytes(1000))
        # A fault, were it not too late for one.
        await phone.send([bytes(500), bytes(500)])
        sent.set()
        websocket = await ended
    assert websocket._turned_out is None
    assert websocket.protocol.close_rcvd is not None and websocket.close_code == 1001


async def test_close_waits_for_no_phone_whose_socket_takes_nothing() -> None:
    """A run that ends would wait for it, as long as it likes: its silence is looked for no more."""
    ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def leave(websocket: ServerConnection) -> None:
        now_s = asyncio.get_running_loop().time
        websocket.transport.set_write_buffer_limits(high=1024)
        websocket.transport.write(bytes(4_000_000))
        began_s = now_s()
        await websocket.close(1001)
        ended.set_result(now_s() - began_s)

    settings: dict[str, Any] = {"create_connection": GuardedConnection, "compression": None, "close_timeout": 0.3}
    async with (
        serve(leave, "127.0.0.1", 0, **settings) as server,
        connect(
            f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", compression=None, proxy=None, close_timeout=0.1
        ) as phone,
    ):
        phone.transport.pause_reading()
        assert 0.2 < await asyncio.wait_for(ended, 10) < 5
