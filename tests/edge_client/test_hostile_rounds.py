"""Servers that ask for what a phone must not send in a masked round: nothing of its update leaves in the clear."""

import asyncio
import contextlib
from typing import Any

import pytest
from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from featherfed.edge_client.phone_state import PhoneState
from featherfed.errors import LocalError
from featherfed.secure.keys import PhoneKey
from featherfed.wire.messages import (
    NOTHING,
    Circle,
    Key,
    Message,
    ModelBegin,
    Shares,
    Survivors,
    Task,
    UpdateBegin,
    WholeUpdate,
    pack,
    unpack,
)
from tests import layouts
from tests.edge_client.test_hostile import WHOLE, hostile, play
from tests.server.peer import digest

pytestmark = pytest.mark.timeout(60)
WELCOME = layouts.welcome(
    "run", model="tiny", shard=0, shards=5, chunk_bytes=65536, masked=True, clip=8.0,
    uplink="exact(0) | flat | rotate_shared | grid(4)",
)  # fmt: skip
MODEL = pack(ModelBegin(0, NOTHING, "float32", [WHOLE], digest(bytes(WHOLE)), 0, bytes(WHOLE)))
KEYS = [PhoneKey.new().public for _ in range(4)]
STEPS = bytes([100])
GOOD = Circle(1, 0, 0, 0, 1, 3, 4, STEPS, [0, 1, 2, 3, 4], b"".join(KEYS))


class Heard:
    """What a phone says to a server that sends it a round, then what it must not be answered."""

    def __init__(self, *messages: Message, welcome: Any = WELCOME) -> None:
        self._messages, self.welcome = messages, welcome
        self.said: list[Any] = []

    async def act(self, connection: ServerConnection) -> None:
        frames = [pack(Task(1, 0)), *(pack(each) for each in self._messages), MODEL]  # type: ignore[arg-type]
        for frame in frames:
            await connection.send(frame)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(3):
                while True:
                    self.said.append(unpack(await connection.recv()))  # type: ignore[arg-type]
        await connection.close(4004, "enough")

    def kinds(self) -> list[type[Message]]:
        return [type(each) for each in self.said]


async def words_of(heard: Heard, **options: Any) -> str:
    async with hostile(heard.act, welcome=heard.welcome) as (address, _):
        with pytest.raises(LocalError) as caught:
            await play(address, **options)
    return str(caught.value)


async def test_a_good_circle_gets_a_masked_update() -> None:
    heard = Heard(GOOD)
    assert "enough" in await words_of(heard)
    assert heard.kinds() == [Key, WholeUpdate] or heard.kinds() == [Key, UpdateBegin]


@pytest.mark.parametrize(
    ("circle", "words"),
    [
        (Circle(1, 0, 0, 0, 1, 0, 1, STEPS), "a circle without masks"),
        (replace(GOOD, keys=GOOD.keys[:-32] + GOOD.keys[:32]), "have one key"),
        (replace(GOOD, keys=GOOD.keys[:-1]), "bytes of keys"),
        (replace(GOOD, keys=GOOD.keys[:-32] + bytes(32)), "key"),
        (replace(GOOD, members=[0, 1, 2, 3, 3]), "names a shard twice"),
        (replace(GOOD, members=[1, 2, 3, 4, 5], keys=b"".join([*KEYS, PhoneKey.new().public])), "lacks shard 0"),
        (replace(GOOD, threshold=2, least=3), "2 shares would open an update"),
        (replace(GOOD, threshold=4, least=9), "do not fit a circle of 5"),
        (replace(GOOD, members=[0], keys=b"", threshold=1, least=2), "do not fit a circle of 1"),
        (replace(GOOD, steps=b""), "steps"),
        (replace(GOOD, steps=bytes(60_000)), "steps"),
        (replace(GOOD, slice=7, slices=3), "slice 7 of 3"),
        (replace(GOOD, slices=1 << 50), "slices"),
    ],
)  # fmt: skip
async def test_no_update_leaves_for_a_circle_that_hides_too_little(circle: Circle, words: str) -> None:
    heard = Heard(circle)
    assert words in await words_of(heard)
    assert heard.kinds() == [Key]


async def test_run_that_was_masked_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(GOOD, welcome=replace(WELCOME, masked=False))

    def enter(state: PhoneState, run: str, shard: int) -> None:
        # As a phone that has played a masked round of this run.
        state.run, state.shard, state.secrets = run, shard, b"kept"

    monkeypatch.setattr(PhoneState, "enter", enter)
    assert "masked updates, and says now that it does not" in await words_of(heard)
    assert heard.kinds() == []


NOISED = replace(WELCOME, uplink="exact(0) | flat | rotate_shared | grid(12)", bounded=True, noise=1.0, colluding=0.1)


@pytest.mark.parametrize(
    ("welcome", "circle", "words"),
    [
        (replace(NOISED, masked=False), GOOD, "has phones add noise to what it does not mask"),
        (NOISED, replace(GOOD, slices=2), "2 slices, in a run with differential privacy"),
        (replace(NOISED, colluding=0.9), GOOD, "of the 4 survivors of a circle of 5 as many may be colluding"),
        (replace(NOISED, noise=1e9), GOOD, "steps is beyond the"),
    ],
)
async def test_no_update_leaves_with_less_noise_than_was_promised(welcome: Any, circle: Circle, words: str) -> None:
    heard = Heard(circle, welcome=welcome)
    assert words in await words_of(heard)
    assert WholeUpdate not in heard.kinds() and UpdateBegin not in heard.kinds()


async def test_phone_whose_owner_asks_for_more_noise_takes_no_part() -> None:
    heard = Heard(GOOD, welcome=NOISED)
    assert (
        "promises noise of 1 in each sum, and this phone is to take part only where it is at least 2"
        in await words_of(heard, least_noise=2.0)
    )
    assert heard.kinds() == []
    assert "enough" in await words_of(Heard(GOOD, welcome=NOISED), least_noise=1.0)


@pytest.mark.parametrize("welcome", [WELCOME, replace(WELCOME, masked=False)])
async def test_a_list_before_the_update_is_refused(welcome: Any) -> None:
    heard = Heard(welcome=welcome)
    send = heard.act

    async def act(connection: ServerConnection) -> None:
        listing = asyncio.create_task(send(connection))
        for _ in range(20):
            await asyncio.sleep(0.1)
            with contextlib.suppress(ConnectionClosed):
                await connection.send(pack(Survivors(1, 0, 1, True, b"\x1f", b"\x1e")))
        await listing

    heard.act = act  # type: ignore[method-assign]
    assert "before the upload" in await words_of(heard)
    assert Shares not in heard.kinds()


@pytest.mark.parametrize(
    ("alive", "asked"),
    [(b"", b""), (b"\xff", b"\x00"), (b"\x1f" * 2, b"\x1e"), (b"\x1f", b"\x01"), (b"\x0e", b"\x02"),
     (b"\x07", b"\x06")],
)  # fmt: skip
async def test_a_list_that_cannot_be_is_refused(alive: bytes, asked: bytes) -> None:
    heard = Heard(GOOD)
    send = heard.act

    async def act(connection: ServerConnection) -> None:
        reading = asyncio.create_task(send(connection))
        while not heard.said or len(heard.said) < 2:
            await asyncio.sleep(0.02)
        with contextlib.suppress(ConnectionClosed):
            await connection.send(pack(Survivors(1, 0, 1, True, alive, asked)))
        await reading

    heard.act = act  # type: ignore[method-assign]
    assert "broke the protocol" in await words_of(heard)
    assert Shares not in heard.kinds()


async def test_phone_of_a_final_list_sends_nothing_more_in_that_round_and_says_so() -> None:
    """To a server that does as if it had lost its memory: it stays, and is told of the next round."""
    heard = Heard(GOOD)
    send = heard.act

    async def said(count: int) -> None:
        while len(heard.said) < count:
            await asyncio.sleep(0.02)

    async def act(connection: ServerConnection) -> None:
        reading = asyncio.create_task(send(connection))
        await said(2)
        # Of the last two members, which the phone itself is not.
        await connection.send(pack(Survivors(1, 0, 1, True, b"\x1f", b"\x18")))
        await said(3)
        await connection.send(pack(Task(1, 0)))
        await connection.send(pack(replace(GOOD, attempt=1 << 16, keys=b"")))
        await reading

    heard.act = act  # type: ignore[method-assign]
    assert "enough" in await words_of(heard)
    assert heard.kinds()[0] is Key and heard.kinds()[2:] == [Shares, Shares]
    assert heard.said[2].version == 1 and len(heard.said[2].data) == 32
    assert heard.said[3] == Shares(1, 1 << 16, 0, b"")
