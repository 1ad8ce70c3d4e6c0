"""Randomness as an argument: every draw is named by (seed, round, client, purpose).

Both ends of a link derive the same generator from the run's seed and their place in it, so masks, rotations and
frozen matrices never travel. A client is its shard's index, not its name: the same seed gives the same run whatever
the phones are called and in whatever order they come.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence

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


def bit_generators(keys: Sequence[RoundKey], purposes: Sequence[str]) -> list[list[np.random.PCG64]]:
    """Return the bit generators of `key.generator(purpose)`: for each purpose a list, of each key's.

    Seeded together, in a fifth of the time: numpy spreads a seed over a generator's state in Python's steps, some 50
    of them, which are here taken for all at once.

    >>> key = RoundKey(0, 1, 2)
    >>> ((first,), (_,)) = bit_generators([key], ["a", "b"])
    >>> first.random_raw() == key.generator("a").bit_generator.random_raw()
    True
    """
    states = _spread(seeds_of(keys, purposes))
    seeded: Callable[[Any], np.random.PCG64] = np.random.PCG64  # numpy's stubs know its own kinds of seeds alone
    made = [seeded(_Spread(state)) for state in states]
    return [made[first : first + len(keys)] for first in range(0, len(made), len(keys))]


def seeds_of(keys: Sequence[RoundKey], purposes: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Return the seeds of `key.generator(purpose)`, (purposes · keys, 4 words): for each purpose those of all keys."""
    digests = [_digest(key.seed, key.round_number, key.client, purpose) for purpose in purposes for key in keys]
    return np.frombuffer(b"".join(digests), "<u4").astype(np.uint32).reshape(-1, 4)


class _Spread(ISeedSequence):
    """A seed that is spread already."""

    def __init__(self, state: npt.NDArray[np.uint64]) -> None:
        self._state = state

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> npt.NDArray[np.uint64]:
        assert (n_words, dtype) == (4, np.uint64), "what a PCG64 asks for"
        return self._state


def _powers(first: int, factor: int, count: int) -> npt.NDArray[np.uint32]:
    """Return first · factor^i modulo 2³² for i = 0 … count."""
    return np.array([first * pow(factor, power, 1 << 32) % (1 << 32) for power in range(count + 1)], np.uint32)


_TAKEN = _powers(0x43B0D7E5, 0x931E8875, 16)
"""What a word of a seed is hashed with, one after the other; `_GIVEN` is the same of a state."""
_GIVEN = _powers(0x8B51F9DD, 0x58F38DED, 8)
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)


def _hashed(words: npt.NDArray[np.uint32], constants: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Hash each column of `words` with its constant and the next one."""
    hashed = words ^ constants[:-1]
    hashed *= constants[1:]
    hashed ^= hashed >> 16
    return hashed


def _spread(seeds: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """Return `np.random.SeedSequence(seed).generate_state(4, np.uint64)` of seeds of four words, (seeds, 4)."""
    pool = _hashed(seeds, _TAKEN[:5])
    for source in range(4):
        others = [place for place in range(4) if place != source]
        first = 4 + 3 * source
        mixed = _MIX_LEFT * pool[:, others] - _MIX_RIGHT * _hashed(pool[:, [source] * 3], _TAKEN[first : first + 4])
        mixed ^= mixed >> 16
        pool[:, others] = mixed
    return _hashed(np.concatenate([pool, pool], axis=1), _GIVEN).astype("<u4").view("<u8").astype(np.uint64)


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
