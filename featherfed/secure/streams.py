"""Masks: a seed's stream of numbers, added to an update by one phone and taken off the sum again.

A stream is ChaCha20's (RFC 8439, counter and nonce 0) under the seed's key of the attempt. Its first four bytes, the
lowest first, mask the upload's word modulo 2³²; then each residue has one byte, or two (the lowest first) for r > 8,
of which the low r bits count. Since 2^r divides 2⁸ and 2¹⁶, each residue's mask is exactly uniform, and residues may
be added and subtracted as bytes and cut to r bits at the end.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from featherfed.secure.keys import stream_key

Residues = npt.NDArray[np.unsignedinteger[Any]]
"""(count,) uint8 for r ≤ 8, else uint16; each below 2^r."""
WORD_BYTES = 4
_START = bytes(16)


def dtype_of(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return what residues of r bits are kept in."""
    return np.dtype("u1" if bits <= 8 else "<u2")


def keystream(key: bytes, length: int) -> bytes:
    """Return so many bytes of ChaCha20's stream under a key of 32 bytes, from counter 0 with nonce 0."""
    return Cipher(ChaCha20(key, _START), mode=None).encryptor().update(bytes(length))


def expanded(key: bytes) -> Callable[[int], bytes]:
    """Return what gives the bytes of that stream one after the other, so many at a time."""
    encryptor = Cipher(ChaCha20(key, _START), mode=None).encryptor()
    return lambda length: encryptor.update(bytes(length))


class Masked:
    """A word and residues to which streams are added: an upload that is being masked, or a sum that is being opened."""

    def __init__(self, word: int, residues: Residues, *, bits: int, digest: bytes) -> None:
        self._bits, self._digest = bits, digest
        self._word = word
        self._residues = residues.astype(dtype_of(bits))  # a copy

    def add(self, word: int, residues: Residues) -> None:
        """Add another upload."""
        self._word += word
        self._residues += residues.astype(self._residues.dtype, copy=False)

    def add_stream(self, seed: bytes, sign: int) -> None:
        """Add the stream of a seed, or subtract it (`sign` = −1)."""
        stream = keystream(stream_key(seed, self._digest), WORD_BYTES + self._residues.nbytes)
        self._word += sign * int.from_bytes(stream[:WORD_BYTES], "little")
        numbers = np.frombuffer(stream, self._residues.dtype, offset=WORD_BYTES)
        (np.add if sign > 0 else np.subtract)(self._residues, numbers, out=self._residues)

    @property
    def word(self) -> int:
        """The word, modulo 2³²."""
        return self._word % (1 << 32)

    @property
    def residues(self) -> Residues:
        """The residues, cut to r bits."""
        cut: Residues = self._residues & self._residues.dtype.type((1 << self._bits) - 1)
        return cut
