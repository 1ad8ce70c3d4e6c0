"""Tasks and models on their way to phones: the parcel that each one lacks, in chunks, from where it broke off."""

from dataclasses import dataclass

from featherfed.wire.messages import Cancel, ModelBegin, ModelChunk, Task
from server.config import RunConfig
from server.phone_connection import PhoneConnection
from server.versions import Parcel, Versions
from server.watcher import Watcher

CHUNK_BYTES = 16 * 1024
"""Of a model: so little that a Cancel or a ping never waits long behind it on a slow link."""


@dataclass(slots=True)
class _Delivery:
    round_number: int
    stopped: bool = False


class Downlink:
    """Gives phones their tasks."""

    def __init__(self, config: RunConfig, versions: Versions, watcher: Watcher) -> None:
        self._config = config
        self._versions = versions
        self._watcher = watcher
        self._under_way: dict[PhoneConnection, _Delivery] = {}
        self._sent: dict[int, tuple[bytes, int]] = {}  # by shard: digest and bytes of the last model sent

    async def deliver(self, phone: PhoneConnection, round_number: int) -> None:
        """Send the task of a round, and the model where the phone has another version; returns when all is sent."""
        self.stop(phone)
        delivery = self._under_way[phone] = _Delivery(round_number)
        config = self._config
        self._watcher.download_began(phone.shard, round_number)
        await phone.send(
            Task(
                round_number,
                self._versions.version,
                config.uplink,
                config.epochs,
                config.batch_size,
                config.learning_rate(round_number),
                config.momentum,
                config.weight_decay,
                config.prox_mu,
            )
        )
        if phone.held_version != self._versions.version and not delivery.stopped:
            await self._send_model(phone, self._versions.parcel(phone.held_version), delivery)
        if self._under_way.get(phone) is delivery:
            del self._under_way[phone]
            self._watcher.download_ended(phone.shard, round_number)

    async def cancel(self, phone: PhoneConnection, round_number: int) -> None:
        """Tell a phone to stop its work on a round; what is left of its model is not sent."""
        delivery = self._under_way.get(phone)
        if delivery is not None and delivery.round_number == round_number:
            self.stop(phone)
        await phone.send(Cancel(round_number))

    def stop(self, phone: PhoneConnection) -> None:
        """Send no more of what is under way to a phone."""
        delivery = self._under_way.pop(phone, None)
        if delivery is not None:
            delivery.stopped = True

    async def _send_model(self, phone: PhoneConnection, parcel: Parcel, delivery: _Delivery) -> None:
        digest, had = phone.partial
        offset = min(had, len(parcel.payload)) if digest == parcel.digest else 0
        traffic = phone.traffic("downlink")
        sent_digest, sent = self._sent.get(phone.shard, (b"", 0))
        if sent_digest == parcel.digest:
            traffic.resent += max(0, sent - offset)
        else:
            traffic.theory += parcel.theory
        end = offset + CHUNK_BYTES
        await phone.send(
            ModelBegin(
                parcel.version,
                parcel.base,
                parcel.spec,
                list(parcel.lengths),
                parcel.digest,
                offset,
                parcel.payload[offset:end],
            )
        )
        while end < len(parcel.payload):
            if delivery.stopped:
                traffic.wasted += min(end, len(parcel.payload)) - offset
                return
            # Noted before the chunk is known to have arrived: what a dropped link swallowed is what is sent again.
            self._sent[phone.shard] = (parcel.digest, end)
            await phone.send(ModelChunk(end, parcel.payload[end : end + CHUNK_BYTES]))
            end += CHUNK_BYTES
        self._sent[phone.shard] = (parcel.digest, len(parcel.payload))
        phone.partial = (b"", 0)
        phone.held_version = parcel.version
