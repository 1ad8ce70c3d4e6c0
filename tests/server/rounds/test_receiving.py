"""How chunks of an update are answered while more of them come."""

from pathlib import Path

import pytest

from featherfed.server.config import config_from
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.storage.run_folder import create
from featherfed.simulation import Fleet, simulate
from featherfed.wire.messages import Ack, AnyMessage, UpdateChunk


def test_chunks_that_come_one_upon_the_other_are_acknowledged_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acks = chunks = 0
    send, receive = PhoneConnection.send, PhoneConnection.receive

    async def sending(phone: PhoneConnection, *messages: AnyMessage) -> None:
        nonlocal acks
        acks += sum(isinstance(message, Ack) for message in messages)
        await send(phone, *messages)

    async def receiving(phone: PhoneConnection) -> AnyMessage:
        nonlocal chunks
        message = await receive(phone)
        chunks += isinstance(message, UpdateChunk)
        return message

    monkeypatch.setattr(PhoneConnection, "send", sending)
    monkeypatch.setattr(PhoneConnection, "receive", receiving)
    config = config_from({"problem": "digits/2nn", "phones": 2, "rounds": 2, "uplink": "float32", "eval_every": 2})
    simulate(config, lambda: create(tmp_path, "run", config), Fleet(trains=False), workers=1)
    assert chunks > 20
    assert acks < 0.6 * chunks
