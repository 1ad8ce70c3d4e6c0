"""The server's part: from the masked uploads of a circle's survivors, and what was told of them, to their sum."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice

from featherfed.errors import OpeningError
from featherfed.secure import field, keys
from featherfed.secure.context import Context
from featherfed.secure.keys import COMMITMENT_BYTES
from featherfed.secure.streams import Masked, Residues

MOST_TRIES = 600
"""How many choices of shares are tried for one own seed: enough to leave any two liars out of 34."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What one phone sent: `head` (commitment and points; empty where nothing is masked), word and residues."""

    head: bytes
    word: int
    residues: Residues


@dataclass(frozen=True, slots=True)
class Opened:
    """A circle's sum: residues modulo 2^r, whose words are the number of survivors, and who told what is wrong."""

    word: int
    residues: Residues
    liars: frozenset[int]


def open_circle(
    context: Context,
    uploads: Mapping[int, Upload],
    survivors: frozenset[int],
    seeds: Mapping[tuple[int, int], bytes],
    shares: Mapping[tuple[int, int], bytes],
) -> Opened:
    """Return the sum of the survivors' updates.

    `seeds` has for each (survivor, gone) their pair seed, `shares` for (holder, survivor) the holder's share of the
    survivor's own seed: t of each survivor's or more. What is above t finds who lies (`_blamed`). Raises `OpeningError`
    if the shares of a survivor give no seed that it committed to, or if the sum has another number of updates than
    survivors.
    """
    order = sorted(survivors)
    first = uploads[order[0]]
    total = Masked(first.word, first.residues, bits=context.bits, digest=context.digest)
    heads = {order[0]: first.head}
    for shard in order[1:]:
        # Each is looked at once: the caller may read it from a disk, and one at a time is enough.
        upload = uploads[shard]
        total.add(upload.word, upload.residues)
        heads[shard] = upload.head
    liars: frozenset[int] = frozenset()
    if context.threshold:
        own_seeds, liars = _own_seeds(context, heads, shares)
        for own_seed in own_seeds:
            total.add_stream(own_seed, -1)
        gone = [shard for shard in context.members if shard not in survivors]
        for holder in order:
            for other in gone:
                total.add_stream(seeds[holder, other], -1 if holder < other else 1)
    if total.word != len(survivors):
        raise OpeningError(at_fault=liars)
    return Opened(total.word, total.residues, liars)


def _own_seeds(
    context: Context, heads: Mapping[int, bytes], shares: Mapping[tuple[int, int], bytes]
) -> tuple[list[bytes], frozenset[int]]:
    """Return the own seeds of all in `heads`, and who told what is wrong."""
    found: list[bytes] = []
    lacking: set[int] = set()
    odds: set[tuple[int, int]] = set()
    for shard, head in heads.items():
        told = {context.place(holder): field.from_bytes(data) for (holder, of), data in shares.items() if of == shard}
        suspects = {context.place(holder) for holder, _ in odds}
        solved = _own_seed(context, head, told, suspects)
        if solved is None:
            lacking.add(shard)
            continue
        own_seed, wrong = solved
        found.append(own_seed)
        odds |= {(context.members[place - 1], shard) for place in wrong}
    liars = _blamed(odds)
    if lacking:
        raise OpeningError(frozenset(lacking), liars)
    return found, liars


def _blamed(odds: Collection[tuple[int, int]]) -> frozenset[int]:
    """Return who lies, of pairs (holder, owner) of which one does.

    A share that is not on its owner's polynomial: the holder told another, or the owner's points are those of another,
    which it can choose so that all fit but one. So nobody is named on the word of one other phone: named is who is at
    odds with two that are at odds with fewer than it.

    >>> sorted(_blamed([(3, 5)])), sorted(_blamed([(3, 5), (3, 6), (3, 7), (4, 5), (4, 6), (4, 7)]))
    ([], [3, 4])
    """
    others: dict[int, set[int]] = {}
    for holder, owner in odds:
        others.setdefault(holder, set()).add(owner)
        others.setdefault(owner, set()).add(holder)
    return frozenset(
        one for one, against in others.items() if sum(len(others[other]) < len(against) for other in against) > 1
    )


def _own_seed(
    context: Context, head: bytes, told: Mapping[int, int], suspects: set[int]
) -> tuple[bytes, set[int]] | None:
    """Return the seed that a head commits to and the places whose shares are not on its polynomial; None: none is."""
    commitment = head[:COMMITMENT_BYTES]
    points = [
        field.from_bytes(head[begin : begin + field.VALUE_BYTES])
        for begin in range(COMMITMENT_BYTES, len(head), field.VALUE_BYTES)
    ]
    for chosen in islice(_choices(told, context.threshold, suspects), MOST_TRIES):
        spare = [place for place in told if place not in chosen]
        secret, *others = field.secret_of(points, {place: told[place] for place in chosen}, (0, *spare))
        own_seed = field.to_bytes(secret)
        if keys.commitment(own_seed, context.digest) == commitment:
            return own_seed, {place for place, value in zip(spare, others, strict=True) if value != told[place]}
    return None


def _choices(told: Mapping[int, int], threshold: int, suspects: set[int]) -> Iterator[tuple[int, ...]]:
    """Yield sets of `threshold` places: one for each way to leave nobody out, then one place, then two, and so on."""
    places = sorted(told, key=lambda place: (place in suspects, place))
    seen = set()
    for left_out in range(len(places) - threshold + 1):
        for out in combinations(places, left_out):
            chosen = tuple([place for place in places if place not in out][:threshold])
            if chosen not in seen:
                seen.add(chosen)
                yield chosen
