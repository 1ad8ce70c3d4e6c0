"""What the witness of a run under faults holds against phones, and what it does not."""

from featherfed.wire.framing import masked_frame, unmasked_frame
from featherfed.wire.messages import PROTOCOL_VERSION, Ack, AnyMessage, Hello, UpdateBegin, UpdateChunk, pack
from lab.chaos.wiretap import Conversation, Witness

UPGRADE = b"GET / HTTP/1.1\r\n\r\n"
PAYLOAD = bytes(range(100))


def connected(witness: Witness) -> Conversation:
    conversation = witness.connection()
    conversation.hear("up", UPGRADE)
    conversation.hear("down", UPGRADE)
    up(conversation, Hello(PROTOCOL_VERSION, "phone", 0, 1))
    return conversation


def up(conversation: Conversation, *messages: AnyMessage) -> None:
    for message in messages:
        conversation.hear("up", masked_frame(pack(message)))


def down(conversation: Conversation, message: AnyMessage) -> None:
    conversation.hear("down", unmasked_frame(pack(message)))


def begin(offset: int, data: bytes) -> UpdateBegin:
    return UpdateBegin(1, len(PAYLOAD), b"12345678", 1, offset, data)


def test_bytes_that_a_phone_was_told_are_durable_and_sends_again_are_counted() -> None:
    witness = Witness()
    first = connected(witness)
    up(first, begin(0, PAYLOAD[:40]))
    down(first, Ack(1, 40))
    second = connected(witness)
    up(second, begin(0, b""))
    down(second, Ack(1, 40))
    up(second, UpdateChunk(30, PAYLOAD[30:]))
    assert (witness.again_bytes, witness.lost_bytes) == (10, 0)
    assert witness.first_again == "phone, round 1: 10 bytes from 30 on, told of 40"


def test_what_is_said_on_a_connection_that_a_phone_has_left_was_not_told() -> None:
    witness = Witness()
    first = connected(witness)
    up(first, begin(0, PAYLOAD[:40]), UpdateChunk(40, PAYLOAD[40:60]))
    down(first, Ack(1, 40))
    second = connected(witness)
    up(second, begin(0, b""))
    down(second, Ack(1, 40))
    down(first, Ack(1, 60))
    up(second, UpdateChunk(40, PAYLOAD[40:]))
    assert witness.again_bytes == 0
    # It is durable for all that: a server that knows less of it later has lost it.
    third = connected(witness)
    up(third, begin(0, b""))
    down(third, Ack(1, 40))
    assert witness.lost_bytes == 20
