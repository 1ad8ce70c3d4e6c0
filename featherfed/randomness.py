"""Randomness as an argument: every draw is named by (seed, round, client, purpose).

Both ends of a link derive the same generator from the run's seed and their place in it, so masks, rotations and
frozen matrices never travel. A client is its shard's index, not its name: the same seed gives the same run whatever
the phones are called and in whatever order they come.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SERVER = -1
"""The client index of draws that all phones of a round share: the downlink, the cohort, shared rotations."""


def derive(seed: int, round_number: int, client: int, purpose: str) -> int:
    """Return 128 bits that are independent for each (seed, round, client, purpose).

    >>> hex(derive(0, 1, 2, "rotate"))
    '0x1f3cda1c5a3c1cbbdf30bbffbdcab934'
    """
    return int.from_bytes(_digest(seed, round_number, client, purpose), "little")


def _digest(seed: int, round_number: int, client: int, purpose: str) -> bytes:
    text = f"{seed}/{round_number}/{client}/{purpose}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class RoundKey:
    """One client's place in one round of one run: what all of its randomness is derived from."""

    seed: int
    round_number: int
    client: int = SERVER

    def generator(self, purpose: str) -> np.random.Generator:
        """Return the generator of this key for `purpose`: the same on both ends, on every machine."""
        digest = _digest(self.seed, self.round_number, self.client, purpose)
        # As four words it is the same seed as `derive` gives as a number, which numpy would take apart again.
        return np.random.Generator(np.random.PCG64(np.frombuffer(digest, "<u4")))

    def shared(self) -> "RoundKey":
        """Return the key that all clients of this round have in common."""
        return RoundKey(self.seed, self.round_number, SERVER)


def uniform(generator: np.random.Generator, size: int) -> npt.NDArray[np.float32]:
    """Return `generator.random(size, np.float32)`, in three quarters of its time; 0 ≤ u < 1, multiples of 2⁻²⁴.

    Each 64-bit output gives two: the upper 24 bits of its low half, then of its high half. The last half may be left.

    >>> key = RoundKey(0, 1, 2)
    >>> bool(np.all(uniform(key.generator("x"), 5) == key.generator("x").random(5, np.float32)))
    True
    """
    words = np.asarray(generator.bit_generator.random_raw(-(-size // 2)), "<u8").view("<u4")[:size]
    words >>= 8
    drawn = words.view(np.int32).astype(np.float32)
    drawn *= np.float32(2.0**-24)
    return drawn
