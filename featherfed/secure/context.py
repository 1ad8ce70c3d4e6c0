"""What all keys of a circle hang on: one attempt of one round as all its members must see it.

Its digest, H in docs/PRIVACY.md, salts every derivation. Members that see different contexts (another model, other
members) derive different masks, which then do not cancel: the sum is noise, and says so.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import blake2b

import msgpack

from featherfed.errors import SecrecyError
from featherfed.secure import circles

LABEL = "featherfed masked sum 1"
"""The first thing that is hashed: no other use of a run's keys derives the same."""
KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Context:
    """One attempt of a circle. The server makes it from its plan, a phone from what it was sent, and both hash it."""

    run: str
    round_number: int
    attempt: int
    circle: int
    slice_: int = 0
    slices: int = 1
    threshold: int
    """t; 0: nothing is masked."""
    least: int
    uplink: str
    bits: int
    """r: residues are added modulo 2^r."""
    steps: bytes
    clip: float
    weights: str = "uniform"
    model: bytes
    """The digest of the model that the updates change."""
    members: tuple[int, ...]
    """Their shards, in the order of the draw; a member's place is its index + 1."""
    keys: tuple[bytes, ...] = ()
    """Their public keys, in the same order."""
    noise: tuple[float, float] | None = None
    """What the run has promised of its phones' noise: how much, and which share of them may add none."""

    def __post_init__(self) -> None:
        if len(set(self.members)) != len(self.members):
            raise SecrecyError(f"the circle {list(self.members)} names a shard twice")
        if not 2 <= self.bits <= 16:
            raise SecrecyError(f"residues of {self.bits} bits cannot be masked, only of 2 to 16")
        if not self.threshold:
            return
        if len(self.keys) != len(self.members) or any(len(key) != KEY_BYTES for key in self.keys):
            raise SecrecyError(f"a circle of {len(self.members)} needs as many keys of {KEY_BYTES} bytes")
        if len(set(self.keys)) != len(self.keys):
            raise SecrecyError(f"two shards of the circle {list(self.members)} have one key")
        if not (1 <= self.threshold < len(self.members) and self.threshold < self.least <= len(self.members)):
            raise SecrecyError(
                f"{self.threshold} shares and {self.least} survivors do not fit a circle of {len(self.members)}"
            )

    def to_bytes(self) -> bytes:
        """Return the msgpack array that is hashed, and that `from_bytes` reads; it ends with the keys without noise."""
        values = [getattr(self, field.name) for field in fields(self)]
        packed: bytes = msgpack.packb([LABEL, *(values if self.noise is not None else values[:-1])])
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "Context":
        """Return the context of what `to_bytes` gave."""
        _, *values = msgpack.unpackb(data, use_list=False)
        return cls(**dict(zip((field.name for field in fields(cls)), values, strict=False)))

    @cached_property
    def digest(self) -> bytes:
        """H: BLAKE2b-256 of `to_bytes`."""
        return blake2b(self.to_bytes(), digest_size=32).digest()

    @property
    def position(self) -> tuple[int, int]:
        """The round and the attempt, which only rise for a phone."""
        return self.round_number, self.attempt

    @property
    def points(self) -> int:
        """How many points an upload carries: k + 1 − t; with t shares they give the polynomial."""
        return len(self.members) - self.threshold

    @property
    def head_bytes(self) -> int:
        """How long commitment and points of an upload are; 0 where nothing is masked."""
        return 8 + 16 * self.points if self.threshold else 0

    def place(self, shard: int) -> int:
        """Return where a member stands in the polynomials: its index + 1."""
        return self.members.index(shard) + 1

    def key(self, shard: int) -> bytes:
        """Return a member's public key."""
        return self.keys[self.members.index(shard)]

    def check(self, shard: int, public: bytes, least_circle: int) -> None:
        """Raise `SecrecyError` if a phone must take no part: it is not in it, or the circle protects too little.

        A server could name a threshold of one; a phone believes none that is below the rule.
        """
        size = len(self.members)
        if not self.threshold:
            raise SecrecyError("a circle without masks, in a run that said that its updates are masked")
        if shard not in self.members or self.key(shard) != public:
            raise SecrecyError(f"the circle {list(self.members)} lacks shard {shard} with the key of this phone")
        if size < max(least_circle, circles.LEAST_MEMBERS):
            raise SecrecyError(f"a circle of {size} is below the {least_circle} of --least-circle")
        if size > circles.MOST_MEMBERS:
            raise SecrecyError(f"a circle of {size} is above {circles.MOST_MEMBERS}")
        if self.threshold < circles.threshold_of(size):
            raise SecrecyError(
                f"{self.threshold} shares would open an update in a circle of {size}, which needs"
                f" {circles.threshold_of(size)}"
            )
