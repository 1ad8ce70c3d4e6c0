"""What an upgrade costs: the server says what RFC 6455 asks for, and no more."""

from collections.abc import Callable
from typing import Any

from tests.server.peer import peer

Serve = Callable[..., Any]
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The one of RFC 6455's example: all are as long."""


async def test_answer_to_an_upgrade_has_the_three_headers_that_it_must_have(serve: Serve) -> None:
    async with serve(phones=1) as served, peer(served.address) as phone:
        response = phone.connection.response
        assert response is not None
        assert {name.lower() for name in response.headers} == {"upgrade", "connection", "sec-websocket-accept"}
        assert (response.status_code, response.reason_phrase) == (101, "")
        least = f"HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        assert phone.connection.bytes_received == len(least) == 110
