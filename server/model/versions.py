"""What phones hold of the model, and the cheapest parcel that brings one up to date.

The server's model after round t is w_t. Phones never see w_t itself but a view s_t, which all that are up to date hold
bit for bit; s_0 = w_0 are the initial weights, drawn or sent whole. How a view is made and comes down is the downlink's
kind: a chain of differences (`chain_versions`), whole steps on a lattice (`lattice_versions`), or a fresh code of all
that was learned (`fresh_versions`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.codec.layout import Layout

F32 = npt.NDArray[np.float32]
Arrays = Mapping[str, npt.NDArray[Any]]
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


class Versions(ABC):
    """The versions of a run that phones may hold: `version` is the newest, `view` are its weights, (parameters,)."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.version = NOTHING
        self.view: F32 = np.zeros(layout.size, np.float32)
        self._parcels: dict[int, Parcel] = {}

    @abstractmethod
    def publish(self, weights: F32) -> None:
        """Make `weights`, (parameters,) float32, the next version; may change none of them."""
        raise NotImplementedError

    @abstractmethod
    def adopt(self, version: int, view: F32, initial: F32 | None, difference: bytes) -> None:
        """Take a version that another server published, for this server's own phones.

        `initial` are the weights of version 0, where its phones keep them, and `difference` the last part of what
        `view` came in: empty where that is not known any more. Raises `LocalError` where it would be needed.
        """
        raise NotImplementedError

    @abstractmethod
    def saved(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `restore` needs, beside the version, as arrays by name."""
        raise NotImplementedError

    @abstractmethod
    def restore(self, version: int, saved: Arrays) -> None:
        """Go on where a saved run stood."""
        raise NotImplementedError

    @abstractmethod
    def _base(self, held: int) -> int:
        """Return what the parcel for a phone that holds version `held`, one of this run's or −1, begins with."""
        raise NotImplementedError

    @abstractmethod
    def _make(self, base: int) -> Parcel:
        """Return the cheapest way from a base to the newest version."""
        raise NotImplementedError

    def parcel(self, held: int) -> Parcel:
        """Return the cheapest way from version `held` (−1: nothing) to the newest one; phones share it."""
        base = self._base(held if NOTHING <= held < self.version else NOTHING)
        if base not in self._parcels:
            self._parcels[base] = self._make(base)
        return self._parcels[base]

    def _stand(self, version: int, view: F32) -> None:
        self.version, self.view = version, view
        self._parcels.clear()

    def _pack(self, base: int, spec: str, parts: Sequence[bytes], theory: int) -> Parcel:
        payload = b"".join(parts)
        digest = blake2b(payload, digest_size=8).digest()
        # A whole model in float32 has one part, whatever lies between its base and its version.
        return Parcel(self.version, base, spec, tuple(map(len, parts)), payload, digest, theory)


def float32_bytes(weights: F32) -> bytes:
    """Return weights as they travel whole."""
    return weights.astype("<f4").tobytes()
