"""What passes between a phone and the server, read off the wire: a witness that is neither of them.

It knows the WebSocket frames and the messages in them, and remembers for each (phone, round, digest) how far the server
has acknowledged, whatever dies in between.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from featherfed.errors import ProtocolError
from featherfed.wire.messages import (
    Accepted,
    Ack,
    AnyMessage,
    Cancel,
    Hello,
    ModelBegin,
    ModelChunk,
    UpdateBegin,
    UpdateChunk,
    WholeUpdate,
    digest_of,
    unpack,
)

Way = Literal["up", "down"]
LARGE_BYTES = 512
"""A frame of which so much has come is one of a model or an update."""

_BINARY, _FINAL, _MASKED = 0x2, 0x80, 0x80


class FrameReader:
    """Takes one direction's bytes, gives the payloads of its binary frames; the HTTP upgrade is passed over."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._upgraded = False

    @property
    def waiting(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._buffer) if self._upgraded else 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that are complete now."""
        self._buffer += data
        if not self._upgraded:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            del self._buffer[: end + 4]
            self._upgraded = True
        while (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == _BINARY:
                yield payload

    def _frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & 0x7F, 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length, start = int.from_bytes(buffer[2 : 2 + width], "big"), 2 + width
        masked = bool(buffer[1] & _MASKED)
        start += 4 * masked
        if len(buffer) < start + length:
            return None
        payload = bytes(buffer[start : start + length])
        if masked:
            mask = np.frombuffer(bytes(buffer[start - 4 : start]) * (length // 4 + 1), np.uint8)[:length]
            payload = (np.frombuffer(payload, np.uint8) ^ mask).tobytes()
        opcode = buffer[0] & 0x0F
        del buffer[: start + length]
        return opcode, payload


@dataclass(slots=True)
class Witness:
    """What all connections of a run have shown."""

    acked: dict[tuple[str, int, bytes], int] = field(default_factory=dict)
    """By (phone, round, digest): the most bytes that an Ack said were durable, before it was passed on."""
    told: dict[tuple[str, int, bytes], int] = field(default_factory=dict)
    """The most of these that the phone may know of: what is said on a connection that it has left, nobody hears."""
    newest: dict[str, "Conversation"] = field(default_factory=dict)
    """Each phone's newest connection."""
    accepted: set[tuple[str, int]] = field(default_factory=set)
    lost_bytes: int = 0
    """Acknowledged, and later not known to the server any more."""
    again_bytes: int = 0
    """Uploaded although the phone had been told that they were durable."""
    first_again: str = ""
    """Which these were, when it first happened."""
    payload_bytes: int = 0

    def connection(self) -> "Conversation":
        """Return the ears for one connection."""
        return Conversation(self)


class Conversation:
    """One connection's messages, in the order in which they passed."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._readers: dict[Way, FrameReader] = {"up": FrameReader(), "down": FrameReader()}
        self._left: dict[Way, int] = {"up": 0, "down": 0}
        self._size = 0
        self._update: tuple[str, int, bytes] | None = None
        self.phone = ""

    def hear(self, way: Way, data: bytes) -> None:
        """Hear what the phone sends up, or the server down."""
        for frame in self._readers[way].feed(data):
            self._heard(unpack(frame))

    def loading(self, way: Way) -> bool:
        """Return whether an update (up) or a model (down) is under way and not whole."""
        return self._left[way] > 0 or self._readers[way].waiting >= LARGE_BYTES

    def _heard(self, message: AnyMessage) -> None:
        witness = self._witness
        match message:
            case Hello():
                self.phone = message.name
                witness.newest[self.phone] = self
            case UpdateBegin(number, size, digest, _, offset, data):
                self._update, self._size = (self.phone, number, digest), size
                self._sent(offset, data)
            case WholeUpdate(number, data):
                self._update, self._size = (self.phone, number, digest_of(data)), len(data)
                self._sent(0, data)
            case UpdateChunk(offset, data):
                self._sent(offset, data)
            case ModelBegin(lengths=lengths, offset=offset, data=data):
                self._left["down"] = sum(lengths) - offset - len(data)
            case ModelChunk(data=data):
                self._left["down"] -= len(data)
            case Cancel():
                self._left = {"up": 0, "down": 0}
            case Ack(number, offset):
                update = self._update
                if update is None or update[1] != number:
                    raise ProtocolError(f"Ack of round {number} for an update that {self.phone} did not begin")
                witness.lost_bytes += max(0, witness.acked.get(update, 0) - offset)
                witness.acked[update] = max(witness.acked.get(update, 0), offset)
                if witness.newest.get(self.phone) is self:
                    witness.told[update] = max(witness.told.get(update, 0), offset)
            case Accepted(number):
                witness.accepted.add((self.phone, number))
                self._left["up"] = 0

    def _sent(self, offset: int, data: bytes) -> None:
        witness = self._witness
        witness.payload_bytes += len(data)
        # Without data it is a question.
        self._left["up"] = self._size - offset - len(data) if data else 0
        if self._update is not None:
            told = witness.told.get(self._update, 0)
            again = max(0, min(told, offset + len(data)) - offset)
            if again and not witness.again_bytes:
                phone, number, _ = self._update
                witness.first_again = f"{phone}, round {number}: {again} bytes from {offset:,} on, told of {told:,}"
            witness.again_bytes += again
