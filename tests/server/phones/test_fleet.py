"""Names, connections and grace times, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

import pytest
from msgspec.structs import replace

from featherfed.bandwidth_sim.virtual import run
from featherfed.server.phones.admission import NoShardError, ShardLaterError
from featherfed.server.phones.fleet import Fleet
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.wire.messages import NOTHING, PROTOCOL_VERSION, Hello

GRACE_S = 40.0
RUN = "ab12"


@dataclass(eq=False)
class Connection:
    """What a fleet knows of a connection; its socket is none of the fleet's business."""

    shard: int = NOTHING
    name: str = ""
    held_version: int = NOTHING
    partial: tuple[bytes, int] = (b"", 0)
    pending_round: int = NOTHING
    rests_s: float = 0.0
    parted: bool = False
    open: bool = True
    hello_number: int = 0
    replaced: bool = False


def hello(name: str, **fields: Any) -> Hello:
    said = Hello(
        PROTOCOL_VERSION, name, NOTHING, 0, run=RUN, held_version=7, pending_round=3, partial_digest=b"12345678",
        partial_bytes=100,
    )  # fmt: skip
    return replace(said, **fields)


def come(fleet: Fleet, name: str, **fields: Any) -> PhoneConnection:
    phone = cast(PhoneConnection, Connection())
    fleet.admit(phone, hello(name, **fields), run=RUN)
    return phone


def lost(fleet: Fleet) -> list[int]:
    """Return the shards whose phones are lost, as far as nobody has heard of them."""
    return [fleet.lost.get_nowait() for _ in range(fleet.lost.qsize())]


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def wrapped() -> None:
        run(test())

    wrapped.__name__ = test.__name__
    return wrapped


@in_virtual_time
async def test_phone_that_stays_away_is_lost_after_the_grace_time_and_not_before() -> None:
    fleet = Fleet(2, {}, grace_s=GRACE_S)
    phone = come(fleet, "a")
    fleet.connect(phone)
    assert fleet.left(phone)
    await asyncio.sleep(GRACE_S - 1)
    assert lost(fleet) == []
    await asyncio.sleep(2)
    assert lost(fleet) == [0]


@in_virtual_time
async def test_phone_that_comes_back_in_time_is_never_lost() -> None:
    fleet = Fleet(2, {}, grace_s=GRACE_S)
    for _ in range(3):
        phone = come(fleet, "a")
        assert phone.shard == 0
        fleet.connect(phone)
        fleet.left(phone)
        await asyncio.sleep(GRACE_S - 1)
    fleet.connect(come(fleet, "a"))
    await asyncio.sleep(10 * GRACE_S)
    assert lost(fleet) == []


@in_virtual_time
async def test_newer_connection_replaces_the_older_whose_end_then_means_nothing() -> None:
    fleet = Fleet(2, {}, grace_s=GRACE_S)
    assert fleet.connect(older := come(fleet, "a")) is None
    assert fleet.connect(newer := come(fleet, "a")) is older
    assert not fleet.left(older)
    await asyncio.sleep(2 * GRACE_S)
    assert lost(fleet) == []
    assert fleet.connections == {0: newer}


@in_virtual_time
async def test_connection_that_was_overtaken_or_lost_on_its_way_takes_no_place() -> None:
    fleet = Fleet(2, {}, grace_s=GRACE_S)
    older, newer = come(fleet, "a"), come(fleet, "a")
    assert fleet.connect(newer) is None
    assert fleet.connect(older) is older
    assert not fleet.left(older)
    gone = come(fleet, "a")
    cast(Connection, gone).open = False
    assert fleet.connect(gone) is gone
    assert not fleet.left(gone)
    assert fleet.connections == {0: newer}


@in_virtual_time
async def test_shard_of_a_lost_phone_goes_to_one_newcomer_only() -> None:
    fleet = Fleet(1, {}, grace_s=GRACE_S)
    gone = come(fleet, "a")
    fleet.connect(gone)
    fleet.left(gone)
    await asyncio.sleep(GRACE_S + 1)
    taker = come(fleet, "b")
    # `b` is not connected yet: its Welcome waits for the disk.
    with pytest.raises(NoShardError):
        come(fleet, "c")
    fleet.connect(taker)
    assert fleet.names == {0: "b"}


@in_virtual_time
async def test_newcomer_is_told_to_wait_for_the_shard_of_a_phone_that_left_and_then_gets_it() -> None:
    fleet = Fleet(2, {}, grace_s=GRACE_S)
    stays, gone = come(fleet, "a"), come(fleet, "b")
    fleet.connect(stays)
    fleet.connect(gone)
    with pytest.raises(NoShardError, match="all 2 shards are taken; the run"):
        come(fleet, "c")
    fleet.left(gone)
    with pytest.raises(ShardLaterError, match="the shard of a phone that left is free in 40 s"):
        come(fleet, "c")
    with pytest.raises(ShardLaterError, match="shard 1 is that of phone 'b', which left; it is free in 40 s"):
        come(fleet, "c", shard=1, shards=2)
    with pytest.raises(NoShardError):
        come(fleet, "c", shard=0, shards=2)
    await asyncio.sleep(GRACE_S + 1)
    assert come(fleet, "c").shard == 1


@in_virtual_time
async def test_shard_of_a_phone_that_cannot_play_is_free_at_once() -> None:
    fleet = Fleet(1, {}, grace_s=GRACE_S)
    bare = come(fleet, "a")
    fleet.connect(bare)
    assert fleet.left(bare, for_good=True)
    assert lost(fleet) == [0]
    assert come(fleet, "b").shard == 0


@in_virtual_time
async def test_shard_of_a_phone_that_rests_is_its_own_until_it_should_be_back() -> None:
    fleet = Fleet(1, {}, grace_s=GRACE_S)
    resting = come(fleet, "a")
    fleet.connect(resting)
    resting.rests_s = 1000.0
    assert fleet.left(resting)
    with pytest.raises(ShardLaterError, match="the shard of a phone that left is free in 1040 s"):
        come(fleet, "b")
    await asyncio.sleep(1000.0 + GRACE_S - 1)
    assert lost(fleet) == []
    with pytest.raises(ShardLaterError, match="free in 1 s"):
        come(fleet, "b")
    await asyncio.sleep(2)
    assert lost(fleet) == [0]
    assert come(fleet, "b").shard == 0


@in_virtual_time
async def test_phones_of_an_earlier_life_have_the_grace_time_to_come_back() -> None:
    fleet = Fleet(3, {0: "a", 2: "b"}, grace_s=GRACE_S)
    fleet.start()
    await asyncio.sleep(GRACE_S / 2)
    phone = come(fleet, "b")
    assert phone.shard == 2
    fleet.connect(phone)
    await asyncio.sleep(GRACE_S)
    assert lost(fleet) == [0]


@in_virtual_time
async def test_stopped_fleet_tells_nobody() -> None:
    fleet = Fleet(2, {0: "a"}, grace_s=GRACE_S)
    fleet.start()
    fleet.stop()
    await asyncio.sleep(2 * GRACE_S)
    assert lost(fleet) == []


@in_virtual_time
async def test_what_a_phone_holds_of_another_run_counts_for_nothing() -> None:
    fleet = Fleet(2, {}, grace_s=GRACE_S)
    ours, other = come(fleet, "a"), come(fleet, "b", run="other")
    assert (ours.pending_round, other.pending_round) == (3, NOTHING)


@in_virtual_time
async def test_phone_that_gets_another_shard_than_it_had_has_no_update_to_send() -> None:
    """It forgets it with its Welcome: a round that waits for it gives it its task."""
    fleet = Fleet(2, {0: "other"}, grace_s=GRACE_S)
    assert come(fleet, "a", shard=0).pending_round == NOTHING
    assert come(fleet, "a", shard=1).pending_round == 3


@in_virtual_time
async def test_stranger_that_leaves_is_nobody() -> None:
    fleet = Fleet(2, {}, grace_s=GRACE_S)
    assert not fleet.left(cast(PhoneConnection, Connection()))


@in_virtual_time
async def test_phone_that_is_being_welcomed_is_not_lost_meanwhile() -> None:
    """Its Welcome takes longer on its link than what was left of its grace time."""
    fleet = Fleet(1, {}, grace_s=GRACE_S)
    first = come(fleet, "a")
    fleet.connect(first)
    fleet.left(first)
    await asyncio.sleep(GRACE_S - 1)
    again = come(fleet, "a")
    await asyncio.sleep(2)
    assert lost(fleet) == []
    with pytest.raises(ShardLaterError):
        come(fleet, "b")
    fleet.connect(again)
    await asyncio.sleep(2 * GRACE_S)
    assert lost(fleet) == []


@in_virtual_time
async def test_who_leaves_at_the_end_of_a_run_leaves_no_timer_behind() -> None:
    fleet = Fleet(1, {}, grace_s=GRACE_S)
    phone = come(fleet, "a")
    fleet.connect(phone)
    fleet.stop()
    assert fleet.left(phone)
    await asyncio.sleep(2 * GRACE_S)
    assert lost(fleet) == []
