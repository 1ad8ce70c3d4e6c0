"""What the server has of a connected phone."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from tests.server.peer import peer


class Serve(Protocol):
    def __call__(self, **settings: Any) -> AbstractAsyncContextManager[Any]: ...


async def test_headers_of_a_handshake_are_not_kept_for_as_long_as_the_phone_is_connected(serve: Serve) -> None:
    async with serve(phones=2) as served, peer(served.address) as phone:
        await phone.join("a")
        while not (connections := list(served.service.fleet.connections.values())):
            await asyncio.sleep(0.005)
        (connection,) = connections
        assert len(connection.websocket.request.headers) == len(connection.websocket.response.headers) == 0
        # The library takes what comes for its handshake until it has an answer.
        assert connection.websocket.response.status_code == 101
