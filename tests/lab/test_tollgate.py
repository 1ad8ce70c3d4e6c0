"""The chaos runs' relay leaves nothing behind."""

import asyncio
import gc
import socket

from lab.chaos.tollgate import Tollgate
from lab.chaos.wiretap import Witness


async def test_who_knocks_while_the_gate_closes_leaves_no_socket_behind() -> None:
    """pytest makes an error of a transport that is collected and was not closed."""
    target = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with target:
        for turns in range(6):
            gate = Tollgate(Witness(), lambda total: None)
            port = await gate.open(target.sockets[0].getsockname()[1])
            knocking = []
            for _ in range(4):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
                knocking.append(sock)
            # They wait in the kernel: the gate accepts them in the turns in which it closes.
            for _ in range(turns):
                await asyncio.sleep(0)
            await gate.close()
            for sock in knocking:
                sock.close()
    await asyncio.sleep(0.05)
    gc.collect()
