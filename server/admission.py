"""Which phone plays which shard: a pure book of names and shards."""

from collections.abc import Container

from featherfed.errors import RefusedError
from featherfed.wire.messages import NOTHING, Hello


class NoShardError(RefusedError):
    """There is no shard for this phone."""

    code = 4007


def allot(hello: Hello, *, shards: int, held: dict[int, str], away: Container[int], here: range | None = None) -> int:
    """Return the shard for the phone that says `hello`, or raise `NoShardError`.

    `held` maps shards to the names of their phones; the shards in `away` belong to phones that have been gone for
    longer than the grace time, and may be given to another where no free one is left. `here` are the shards that this
    server has, where it is a gateway and has not all.
    """
    here = here or range(shards)
    mine = next((shard for shard, name in held.items() if name == hello.name), None)
    if hello.shard == NOTHING:
        if mine is not None:
            return mine
        free = next((shard for shard in here if shard not in held), None)
        if free is None:
            free = next((shard for shard in here if shard in away), None)
        if free is None:
            raise NoShardError(f"all {len(here)} shards are taken; the run was started with --phones {shards}")
        return free
    if hello.shards not in (0, shards) or hello.shard >= shards:
        raise NoShardError(
            f"shard {hello.shard}/{hello.shards or shards} was asked for; this run has {shards} shards, counted from 0"
        )
    if hello.shard not in here:
        raise NoShardError(f"shard {hello.shard} is played at another gateway; this one has {here[0]} to {here[-1]}")
    owner = held.get(hello.shard, hello.name)
    if owner != hello.name and hello.shard not in away:
        raise NoShardError(f"shard {hello.shard} is played by phone {owner!r}; leave out --shard to get a free one")
    if mine not in (None, hello.shard):
        raise NoShardError(f"phone {hello.name!r} plays shard {mine} in this run, not {hello.shard}")
    return hello.shard
