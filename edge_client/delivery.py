"""An update on its way up, from whatever byte the server has already: one message, or chunks that suit the link."""

import asyncio
from collections.abc import Awaitable, Callable

from featherfed.edge_client.connection import PhoneConnection
from featherfed.edge_client.phone_context import PhoneContext
from featherfed.edge_client.phone_state import PendingUpdate
from featherfed.errors import ProtocolError
from featherfed.wire.chunking import BEHIND_UP_BYTES, behind_bytes, seen_bytes_per_s
from featherfed.wire.messages import NOTHING, AnyMessage, UpdateBegin, UpdateChunk, Welcome, WholeUpdate


class Delivery:
    """Sends finished updates over one connection, one after the other."""

    def __init__(
        self, phone: PhoneContext, connection: PhoneConnection, send: Callable[[AnyMessage], Awaitable[None]]
    ) -> None:
        self._phone, self._connection, self._send = phone, connection, send
        self._there: asyncio.Future[int] | None = None
        self._longest = NOTHING, 0
        """The round that was offered last, and the bytes of its longest update: each attempt has its own."""
        self.offered = NOTHING
        """The round whose finished update this connection has begun to send."""

    def acknowledged(self, update: PendingUpdate, offset: int) -> None:
        """Note that the server has the first `offset` bytes; raises `ProtocolError` where there are not so many.

        Of what was made ready for an earlier attempt there may have been: an Ack does not say which it is of.
        """
        number, longest = self._longest
        if len(update.payload) < offset <= longest and number == update.round_number:
            return
        if offset > len(update.payload):
            raise ProtocolError(f"{offset} bytes acknowledged of an update of {len(update.payload)} bytes")
        self._phone.progress.durable(update.round_number, offset)
        if self._there is not None and not self._there.done():
            self._there.set_result(offset)

    async def deliver(self, update: PendingUpdate, welcome: Welcome, *, resumed: bool) -> None:
        """Send an update; where it is `resumed`, what the server has of it is asked first."""
        payload, most = update.payload, min(self._phone.dialer.chunk_bytes, welcome.chunk_bytes)
        progress, number = self._phone.progress, update.round_number
        offset = 0 if resumed else progress.chunk_bytes(number, 0, min(most, BEHIND_UP_BYTES))
        before, longest = self._longest
        self._longest = number, max(len(payload), longest if before == number else 0)
        self.offered = number
        self._there = there = asyncio.get_running_loop().create_future()
        if len(payload) <= offset:
            examples = 0 if update.examples == welcome.max_examples else update.examples
            await self._send(WholeUpdate(number, payload, examples, update.attempt))
            return
        announced = number, len(payload), self._phone.phone_state.announce(update), update.examples
        now_s = asyncio.get_running_loop().time
        begun, began_s = 0, now_s()
        await self._send(UpdateBegin(*announced, 0, payload[:offset], update.attempt))
        if resumed:
            # Only what is not durable there travels again. Accepted or Cancel may come instead of the Ack.
            begun = offset = await there
            began_s = now_s()
        while offset < len(payload):
            gone, seconds = offset - begun - self._connection.bytes_waiting, now_s() - began_s
            room = min(most, behind_bytes(gone, seconds, BEHIND_UP_BYTES))
            speed = seen_bytes_per_s(gone, seconds)
            chunk_bytes = progress.chunk_bytes(number, offset, room, bytes_per_s=speed)
            await self._send(UpdateChunk(offset, payload[offset : offset + chunk_bytes]))
            offset += chunk_bytes
