"""What the database keeps of differential privacy: who has paid what in which round, and what that comes to.

Both are written in the transaction that closes the round: a round that counts has its rows, and one that was not
closed has none. But where the server sees sums of circles that phones have put noise in, a sum costs once it can be
opened: its rows are written before it is, and count whether the round is ever closed or not.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from featherfed.privacy.accounting import Price
from featherfed.privacy.budget import Account
from featherfed.server.storage.store import Statement, Store, Whole, metadata, together, upsert

charges_table = sa.Table(
    "charges",
    metadata,
    sa.Column("round", Whole, primary_key=True, autoincrement=False),
    sa.Column("shard", Whole, primary_key=True, autoincrement=False),
    sa.Column("rho", sa.Float, nullable=False),  # of D_α ≤ ξ + ρα, for this round alone
    sa.Column("xi", sa.Float, nullable=False),
)
privacy_table = sa.Table(
    "privacy",
    metadata,
    sa.Column("round", Whole, primary_key=True, autoincrement=False),
    sa.Column("epsilon", sa.Float, nullable=False),  # with delta, of whoever has paid most up to this round
    sa.Column("delta", sa.Float, nullable=False),
    sa.Column("noise_multiplier", sa.Float, nullable=False),
)


def put_charges(round_number: int, shards: Iterable[int], price: Price) -> list[Statement]:
    """Charge phones for a round, each once; of no phones nothing is written."""
    put = upsert(charges_table, ("round", "shard"))
    cost = {"round": round_number, "rho": price.rho, "xi": price.xi}
    rows = [(put, {**cost, "shard": shard}) for shard in sorted(shards)]
    return [together(rows)] if rows else []


def put_privacy(round_number: int, *, epsilon: float, delta: float, noise_multiplier: float) -> Statement:
    """Note the noise of a round, and what the account comes to after it."""
    values = {"epsilon": epsilon, "delta": delta, "noise_multiplier": noise_multiplier}
    return upsert(privacy_table, ("round",)), {"round": round_number, **values}


def account(store: Store) -> Account:
    """Return what the phones have paid in all rounds."""
    whole = Account()
    for row in store.read(charges_table.select().order_by(*charges_table.primary_key.columns)):
        whole = whole.charged([row.shard], Price(row.rho, row.xi))
    return whole


def charged(store: Store, round_number: int) -> frozenset[int]:
    """Return the shards whose phones have paid for a round."""
    query = charges_table.select().where(charges_table.c.round == round_number)
    return frozenset(row.shard for row in store.read(query))


def privacy_by_round(store: Store) -> dict[int, Any]:
    """Return the rows that `put_privacy` wrote, by round, in order."""
    return {row.round: row for row in store.read(privacy_table.select().order_by(privacy_table.c.round))}
