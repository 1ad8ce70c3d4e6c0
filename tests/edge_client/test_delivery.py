"""An update on its way up, to a connection that takes everything."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from featherfed.edge_client.delivery import Delivery
from featherfed.edge_client.phone_context import Progress
from featherfed.edge_client.phone_state import PendingUpdate
from featherfed.errors import ProtocolError
from featherfed.wire.messages import AnyMessage, UpdateBegin, UpdateChunk
from tests import layouts


async def test_late_ack_of_a_longer_attempt_neither_ends_the_phone_nor_skips_a_byte() -> None:
    """An attempt with fewer neighbours has fewer points, so that its update is shorter."""
    sent: list[AnyMessage] = []

    async def send(message: AnyMessage) -> None:
        sent.append(message)

    state = SimpleNamespace(announce=lambda update: bytes(8))
    dialer = SimpleNamespace(chunk_bytes=1024)
    phone = cast(Any, SimpleNamespace(progress=Progress(), phone_state=state, dialer=dialer))
    delivery = Delivery(phone, cast(Any, SimpleNamespace(bytes_waiting=0)), send)
    welcome = layouts.welcome("run", chunk_bytes=1024)
    longer, shorter = (PendingUpdate(3, bytes(size), 1, None) for size in (5000, 4000))
    await delivery.deliver(longer, welcome, resumed=False)
    asking = asyncio.create_task(delivery.deliver(shorter, welcome, resumed=True))
    await asyncio.sleep(0)
    sent.clear()
    delivery.acknowledged(shorter, 5000)
    await asyncio.sleep(0)
    assert not asking.done()
    delivery.acknowledged(shorter, 100)
    await asking
    data = b"".join(each.data for each in sent if isinstance(each, UpdateBegin | UpdateChunk))
    assert len(data) == 3900
    with pytest.raises(ProtocolError, match="5001 bytes acknowledged"):
        delivery.acknowledged(shorter, 5001)
    with pytest.raises(ProtocolError, match="4001 bytes acknowledged"):
        delivery.acknowledged(PendingUpdate(4, bytes(4000), 1, None), 4001)
