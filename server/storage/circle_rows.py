"""What the database keeps of circles: who is in them, which lists were sent, and what phones answered.

It is there until its round is closed, and not longer: with it, and the masked updates, the sum of a circle can be
opened again after a `kill -9`, to the bit.
"""

import json
from dataclasses import dataclass

import sqlalchemy as sa

from featherfed.server.storage.store import Statement, Store, Whole, metadata, upsert

keys_table = sa.Table(
    "keys",
    metadata,
    sa.Column("shard", Whole, primary_key=True, autoincrement=False),
    sa.Column("public", sa.LargeBinary, nullable=False),  # a phone's X25519 key, for the whole run
)
circles_table = sa.Table(
    "circles",
    metadata,
    sa.Column("round", Whole, primary_key=True, autoincrement=False),
    sa.Column("attempt", Whole, primary_key=True, autoincrement=False),
    sa.Column("circle", Whole, primary_key=True, autoincrement=False),
    sa.Column("state", sa.String, nullable=False),  # open | over: it takes no more uploads | summed
    sa.Column("members", sa.String, nullable=False),  # JSON list of shards, in their order
    sa.Column("counted", sa.String, nullable=False),  # JSON list of those whose updates are in its sum
)
lists_table = sa.Table(
    "lists",
    metadata,
    sa.Column("round", Whole, primary_key=True, autoincrement=False),
    sa.Column("attempt", Whole, primary_key=True, autoincrement=False),
    sa.Column("circle", Whole, primary_key=True, autoincrement=False),
    sa.Column("version", Whole, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),  # `SentList.to_bytes`
)
shares_table = sa.Table(
    "shares",
    metadata,
    sa.Column("round", Whole, primary_key=True, autoincrement=False),
    sa.Column("attempt", Whole, primary_key=True, autoincrement=False),
    sa.Column("shard", Whole, primary_key=True, autoincrement=False),
    sa.Column("version", Whole, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)


@dataclass(frozen=True, slots=True)
class StoredCircle:
    """Whose updates are summed in one attempt of a round; `state` is `open`, `over` (for uploads), or `summed`."""

    round_number: int
    attempt: int
    circle: int
    state: str
    members: tuple[int, ...]
    counted: tuple[int, ...] = ()
    """Once it is summed: what of its members may have come later is in no sum of it."""


def put_key(shard: int, public: bytes) -> Statement:
    """Keep the public key of the phone of a shard."""
    return upsert(keys_table, ("shard",)), {"shard": shard, "public": public}


def put_circle(circle: StoredCircle) -> Statement:
    """Note who is in a circle, and whether it is summed."""
    return upsert(circles_table, ("round", "attempt", "circle")), {
        "round": circle.round_number, "attempt": circle.attempt, "circle": circle.circle, "state": circle.state,
        "members": json.dumps(circle.members), "counted": json.dumps(circle.counted),
    }  # fmt: skip


def put_list(round_number: int, attempt: int, circle: int, version: int, data: bytes) -> Statement:
    """Keep a list of survivors, before anybody is told of it."""
    values = {"round": round_number, "attempt": attempt, "circle": circle, "version": version, "data": data}
    return upsert(lists_table, ("round", "attempt", "circle", "version")), values


def put_shares(round_number: int, attempt: int, shard: int, version: int, data: bytes) -> Statement:
    """Keep what a phone has answered to a list."""
    values = {"round": round_number, "attempt": attempt, "shard": shard, "version": version, "data": data}
    return upsert(shares_table, ("round", "attempt", "shard", "version")), values


def drop_circles(round_number: int) -> list[Statement]:
    """Forget the circles, lists and shares of a round that is closed."""
    where = {"r": round_number}
    tables = (circles_table, lists_table, shares_table)
    return [(table.delete().where(table.c.round <= sa.bindparam("r")), where) for table in tables]


def keys(store: Store) -> dict[int, bytes]:
    """Return the public key of each shard whose phone has said one."""
    return {row.shard: row.public for row in store.read(keys_table.select())}


def circles(store: Store, round_number: int) -> list[StoredCircle]:
    """Return the circles of a round, of all of its attempts, in order."""
    query = circles_table.select().where(circles_table.c.round == round_number)
    rows = store.read(query.order_by(circles_table.c.attempt, circles_table.c.circle))
    return [
        StoredCircle(
            row.round, row.attempt, row.circle, row.state, tuple(json.loads(row.members)),
            tuple(json.loads(row.counted)),
        )
        for row in rows
    ]  # fmt: skip


def lists(store: Store, round_number: int) -> dict[tuple[int, int], list[bytes]]:
    """Return the lists that were sent in a round, by attempt and circle, in the order of their versions."""
    query = lists_table.select().where(lists_table.c.round == round_number)
    found: dict[tuple[int, int], list[bytes]] = {}
    for row in store.read(query.order_by(*lists_table.primary_key.columns)):
        found.setdefault((row.attempt, row.circle), []).append(row.data)
    return found


def shares(store: Store, round_number: int) -> dict[tuple[int, int, int], bytes]:
    """Return what phones have answered in a round, by attempt, shard and version."""
    rows = store.read(shares_table.select().where(shares_table.c.round == round_number))
    return {(row.attempt, row.shard, row.version): row.data for row in rows}
