"""What phones hold of the model, and the cheapest parcel that brings one up to date.

The server's model after round t is w_t. Phones never see w_t itself but a view s_t, which all that are up to date hold
bit for bit; s_0 = w_0 are the initial weights, drawn or sent whole. How a view is made and comes down is the downlink's
kind: a chain of differences (`chain_versions`), whole steps on a lattice (`lattice_versions`), or a fresh code of all
that was learned (`fresh_versions`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.codec.layout import Layout
from featherfed.server.model.parcels import F32, NOTHING, Parcel, Parcels

Arrays = Mapping[str, npt.NDArray[Any]]


class Versions(ABC):
    """The versions of a run that phones may hold: `version` is the newest, `view` are its weights, (parameters,)."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.version = NOTHING
        self.view: F32 = np.zeros(layout.size, np.float32)
        self.parcels: Parcels
        """Those of the newest version, once there is one."""

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
    def _parcels(self) -> Parcels:
        """Return the parcels of the version that is the newest now."""
        raise NotImplementedError

    def parcel(self, held: int) -> Parcel:
        """Return the cheapest way from version `held` (−1: nothing) to the newest one."""
        return self.parcels.parcel(held)

    def _stand(self, version: int, view: F32) -> None:
        self.version, self.view = version, view
        self.parcels = self._parcels()
