"""Which phone plays which shard: a pure book of names and shards."""

import math
from collections.abc import Callable, Collection, Container

from featherfed.errors import RefusedError
from featherfed.wire.messages import Hello


class NoShardError(RefusedError):
    """There is no shard for this phone."""

    code = 4007


class ShardLaterError(RefusedError):
    """There is no shard for this phone yet."""

    code = 4011


def allot(
    hello: Hello,
    *,
    shards: int,
    held: dict[int, str],
    away: Container[int],
    absent: Collection[int] = (),
    free_in_s: Callable[[int], float] = lambda shard: 0.0,
    here: range | None = None,
) -> int:
    """Return the shard for the phone that says `hello`; raise `NoShardError`, or `ShardLaterError` where it may wait.

    `held` maps shards to the names of their phones; the shards in `away` belong to phones that have been gone for
    longer than the grace time, and may be given to another where no free one is left; those in `absent` will be so in
    `free_in_s` seconds, unless their phones come back. `here` are the shards that this server has, where it is a
    gateway and has not all.

    A phone that says of how many shards it asks for one (`fl-edge --shard 7/100`) gets that or none. One that does not
    would like the shard that it had, and takes another where that is not free.
    """
    here = here or range(shards)
    mine = next((shard for shard, name in held.items() if name == hello.name), None)
    if hello.shards == 0:
        if mine is not None:
            return mine
        if hello.shard in range(shards) and hello.shard not in here:
            raise NoShardError(_elsewhere(hello.shard, here))
        if hello.shard in here and (hello.shard not in held or hello.shard in away):
            return hello.shard
        free = next((shard for shard in here if shard not in held), None)
        if free is None:
            free = next((shard for shard in here if shard in away), None)
        if free is None and absent:
            # Perhaps it is the one that left, and has forgotten its name.
            raise ShardLaterError(
                f"all {len(here)} shards are taken; the shard of a phone that left is free in"
                f" {math.ceil(min(map(free_in_s, absent)))} s"
            )
        if free is None:
            raise NoShardError(f"all {len(here)} shards are taken; the run was started with --phones {shards}")
        return free
    if hello.shards != shards or hello.shard not in range(shards):
        raise NoShardError(
            f"shard {hello.shard}/{hello.shards} was asked for; this run has {shards} shards, counted from 0"
        )
    if hello.shard not in here:
        raise NoShardError(_elsewhere(hello.shard, here))
    owner = held.get(hello.shard, hello.name)
    if owner != hello.name and hello.shard in absent:
        raise ShardLaterError(
            f"shard {hello.shard} is that of phone {owner!r}, which left; it is free in"
            f" {math.ceil(free_in_s(hello.shard))} s"
        )
    if owner != hello.name and hello.shard not in away:
        raise NoShardError(f"shard {hello.shard} is played by phone {owner!r}; leave out --shard to get a free one")
    if mine not in (None, hello.shard):
        raise NoShardError(f"phone {hello.name!r} plays shard {mine} in this run, not {hello.shard}")
    return hello.shard


def check_gateway(hello: Hello) -> None:
    """Raise `RefusedError` unless it is a gateway that says `hello`: what a phone sends is no sum of many.

    A gateway's name says its place, and so does its token, which opens for that name alone.
    """
    if hello.name != f"gateway-{hello.shard}":
        raise RefusedError(f"this is the root of gateways; give phone {hello.name!r} a gateway's address as its server")


def _elsewhere(shard: int, here: range) -> str:
    return f"shard {shard} is played at another gateway; this one has {here[0]} to {here[-1]}"
