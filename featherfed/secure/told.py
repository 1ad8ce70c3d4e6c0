"""What a phone has said of one attempt, and what it may still say: the rule that keeps an update in its sum.

A phone knows two secrets of each neighbour: their pair seed, which takes a mask off that is in both uploads, and its
share of the neighbour's own seed. The server may have the first of those who are gone and the second of those who are
left; whoever had both of one phone could read its update. So:

- a list of survivors never grows, and has this phone and at least `least` in it;
- a share is told in final lists only, of which there is one: others may ask for more shares of the same survivors, and
  may come in any order;
- the same list gets the same answer, however often it comes;
- what is told is on this phone's disk before it leaves.

And between attempts: rounds and attempts only rise, an attempt has one context and one own seed, which masks one
update; whoever was in a final list takes no further part in that round, summed or not.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import msgpack

from featherfed.errors import SecrecyError, SpentError

MOST_LISTS = 64
"""How many lists of one attempt a phone answers: each stays on its disk.

A server that follows the protocol sends fewer: in a circle of 40 at most 16 before the final one, and each final list
asks a phone for another of 39 shares.
"""


def to_bits(members: Sequence[int], shards: Collection[int]) -> bytes:
    """Return a bit for each member, one byte for eight of them, the lowest bit first.

    >>> to_bits([7, 3, 9], {3, 9}).hex()
    '06'
    """
    number = sum(1 << place for place, shard in enumerate(members) if shard in shards)
    return number.to_bytes(-(-len(members) // 8), "little")


def from_bits(members: Sequence[int], bits: bytes) -> frozenset[int]:
    """Return the shards that `to_bits` was given; raises `SecrecyError` for bytes that are no such bits."""
    number = int.from_bytes(bits, "little")
    if len(bits) != -(-len(members) // 8) or number >> len(members):
        raise SecrecyError(f"{bits.hex()} are no bits of {len(members)} members")
    return frozenset(shard for place, shard in enumerate(members) if number >> place & 1)


@dataclass(frozen=True, slots=True)
class Survivors:
    """A list of survivors as one phone hears it: who is left, and whose secrets it is asked for."""

    version: int
    final: bool
    alive: frozenset[int]
    asked: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One phone's part in one attempt, as its disk keeps it. The last one of a run says what may come next."""

    round_number: int
    attempt: int
    digest: bytes
    """H of the attempt's context."""
    own_seed: bytes
    upload: bytes = b""
    """The digest of the masked upload, once there is one: an own seed masks no other."""
    heard: tuple[Survivors, ...] = ()
    """Each list that was answered, in the order of versions."""

    @property
    def final(self) -> bool:
        """Whether a final list was answered."""
        return bool(self.heard) and self.heard[-1].final

    def check_next(self, position: tuple[int, int]) -> None:
        """Raise `SecrecyError` if a phone with this behind it must not begin the attempt at (round, attempt)."""
        round_number, attempt = position
        if position <= (self.round_number, self.attempt):
            raise SecrecyError(
                f"attempt {attempt} of round {round_number} was over for this phone, which has come to attempt"
                f" {self.attempt} of round {self.round_number}"
            )
        if self.final and round_number == self.round_number:
            raise SpentError(f"this phone was in a final list of round {round_number}, and sends nothing more in it")

    def hear(self, new: Survivors, *, shard: int, members: Sequence[int], least: int) -> "Told":
        """Return what this phone will have told once it answers a list; raises `SecrecyError` if it must not."""
        if new in self.heard:
            return self
        if not self.upload:
            raise SecrecyError(f"a list of attempt {self.attempt} of round {self.round_number} came before the upload")
        last = self.heard[-1] if self.heard else Survivors(0, False, frozenset(members), frozenset())
        name = f"list {new.version} of attempt {self.attempt} of round {self.round_number}"
        if len(self.heard) == MOST_LISTS:
            raise SecrecyError(f"{name} comes after {MOST_LISTS} others")
        if any(new.version == list_.version for list_ in self.heard):
            raise SecrecyError(f"{name} says another thing than before")
        if new.version < last.version and not last.final:
            raise SecrecyError(f"{name} comes after list {last.version}")
        if last.final and not (new.final and new.alive == last.alive):
            raise SecrecyError(f"{name} contradicts the final list {last.version}")
        if not new.alive <= last.alive:
            grown = sorted(new.alive - last.alive)
            raise SecrecyError(f"{name} has shards {grown} that were gone in list {last.version}")
        if shard not in new.alive:
            raise SecrecyError(f"{name} does not have shard {shard}, which is asked")
        if len(new.alive) < least:
            raise SecrecyError(f"{name} has {len(new.alive)} survivors of at least {least}")
        if not new.asked <= frozenset(members) - {shard}:
            raise SecrecyError(f"{name} asks shard {shard} for secrets of {sorted(new.asked - frozenset(members))}")
        if new.asked & new.alive and not new.final:
            raise SecrecyError(f"{name} is not final, and asks for shares of {sorted(new.asked & new.alive)}")
        return replace(self, heard=(*self.heard, new))

    def forgotten(self) -> "Told":
        """Return what stays when the attempt is over: its place and whether it was final, and no seed."""
        return replace(self, own_seed=b"")

    def to_bytes(self) -> bytes:
        """Return the record for the phone's disk."""
        lists = [[list_.version, list_.final, sorted(list_.alive), sorted(list_.asked)] for list_ in self.heard]
        packed: bytes = msgpack.packb([self.round_number, self.attempt, self.digest, self.own_seed, self.upload, lists])
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "Told":
        """Return the record that `to_bytes` gave."""
        round_number, attempt, digest, own_seed, upload, lists = msgpack.unpackb(data)
        return cls(
            round_number=round_number,
            attempt=attempt,
            digest=digest,
            own_seed=own_seed,
            upload=upload,
            heard=tuple(Survivors(v, final, frozenset(alive), frozenset(asked)) for v, final, alive, asked in lists),
        )


def pinned(pins: dict[int, bytes], members: Sequence[int], keys: Sequence[bytes]) -> dict[int, bytes]:
    """Return the keys by shard that a phone has seen in this run, with those of a circle.

    Raises `SecrecyError` where a shard's key is not the one that was seen before: a server may have put its own there.
    """
    for shard, key in zip(members, keys, strict=True):
        if pins.get(shard, key) != key:
            raise SecrecyError(f"the key of shard {shard} has changed within the run, from {pins[shard].hex()}")
    return pins | dict(zip(members, keys, strict=True))
