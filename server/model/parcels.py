"""The parcels of one version: each made when it is first asked for, and shared by the phones that need it.

A parcel is made of what its version stood on when it was published, none of which changes later. So it may be made in
another thread than the event loop's, also while the next version is being published.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from featherfed.codec.layout import Layout
from featherfed.wire.messages import digest_of

F32 = npt.NDArray[np.float32]
NOTHING = -1
"""What a phone holds that holds nothing."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """Bytes that bring a phone from version `base` (−1: nothing) to `version`; see `ModelBegin`."""

    version: int
    base: int
    spec: str
    lengths: tuple[int, ...]
    payload: bytes
    digest: bytes
    theory: int


class Parcels(ABC):
    """The ways to one version."""

    quick: ClassVar[bool] = True
    """Whether a parcel is made of bytes that are there, and worth no thread."""

    def __init__(self, layout: Layout, version: int) -> None:
        self._layout = layout
        self.version = version
        self._made: dict[int, Parcel] = {}
        self._making = threading.RLock()

    @abstractmethod
    def _base(self, held: int) -> int:
        """Return what the parcel for a phone that holds version `held`, an older one or −1, begins with."""
        raise NotImplementedError

    @abstractmethod
    def _make(self, base: int) -> Parcel:
        """Return the cheapest way from a base."""
        raise NotImplementedError

    def made(self, held: int) -> Parcel | None:
        """Return the parcel for a phone that holds version `held`, if it is made already."""
        return self._made.get(self._base_of(held))

    def parcel(self, held: int) -> Parcel:
        """Return the cheapest way from version `held` (−1: nothing), making it if need be."""
        base = self._base_of(held)
        with self._making:
            if base not in self._made:
                self._made[base] = self._make(base)
            return self._made[base]

    def _base_of(self, held: int) -> int:
        return self._base(held if NOTHING <= held < self.version else NOTHING)

    def _pack(self, base: int, spec: str, parts: Sequence[bytes], theory: int) -> Parcel:
        payload = b"".join(parts)
        # A whole model in float32 has one part, whatever lies between its base and its version.
        return Parcel(self.version, base, spec, tuple(map(len, parts)), payload, digest_of(payload), theory)


def float32_bytes(weights: F32) -> bytes:
    """Return weights as they travel whole."""
    return weights.astype("<f4").tobytes()
