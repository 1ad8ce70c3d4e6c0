"""A fresh code of w_t − s₀ for each version: one payload for all phones, whatever they hold (codec/fresh.py)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.codec.fresh import Fresh
from featherfed.codec.layout import Layout
from featherfed.errors import CodecError, LocalError
from featherfed.randomness import RoundKey
from featherfed.server.model.differences import encoded
from featherfed.server.model.parcels import F32, NOTHING, Parcel, Parcels, float32_bytes
from featherfed.server.model.versions import Arrays, Versions


class FreshVersions(Versions):
    """The initial weights, and the newest version's code."""

    def __init__(self, layout: Layout, fresh: Fresh, seed: int) -> None:
        super().__init__(layout)
        self._fresh = fresh
        self._seed = seed
        self._initial = self.view
        self._code = b""

    def publish(self, weights: F32) -> None:
        """Make `weights`, (parameters,) float32, the next version; the first one are the initial weights."""
        version = self.version + 1
        if not version:
            self._initial = weights.copy()
            self._stand(version, self._initial)
            return
        key = RoundKey(self._seed, version)
        self._code, decoded = encoded(self._fresh.pipeline, weights - self._initial, self._layout, key)
        self._stand(version, self._initial + decoded)

    def adopt(self, version: int, view: F32, initial: F32 | None, difference: bytes) -> None:
        """Take a version that another server published, with its code, which is passed on as it is."""
        assert initial is not None, "phones of this downlink keep the initial weights, and so do gateways"
        if version:
            try:
                made = self._fresh.moved(initial, difference, version, self._layout, self._seed)
            except CodecError as error:
                raise LocalError(f"the code of version {version} is lost: {error}") from error
            if not np.array_equal(made, view):
                raise LocalError(f"the code of version {version} makes another model than the one that came")
            self._code = difference
        self._initial = initial
        self._stand(version, view)

    def saved(self) -> dict[str, npt.NDArray[Any]]:
        """Return the view, the initial weights and the code."""
        return {"view": self.view, "initial": self._initial, "code": np.frombuffer(self._code, np.uint8)}

    def restore(self, version: int, saved: Arrays) -> None:
        """Go on where a saved run stood."""
        self._initial, self._code = saved["initial"], saved["code"].tobytes()
        self._stand(version, saved["view"])

    def _parcels(self) -> "FreshParcels":
        return FreshParcels(self._layout, self.version, self._fresh, self._initial, self._code)


class FreshParcels(Parcels):
    """The code of one version, behind the initial weights for those who have not kept them."""

    def __init__(self, layout: Layout, version: int, fresh: Fresh, initial: F32, code: bytes) -> None:
        super().__init__(layout, version)
        self._fresh, self._initial, self._code = fresh, initial, code

    def _base(self, held: int) -> int:
        # Who holds any version has kept the initial weights.
        return min(held, 0)

    def _make(self, base: int) -> Parcel:
        parts = [float32_bytes(self._initial)] if base == NOTHING else []
        theory = 4.0 * self._layout.size * len(parts)
        if self.version:
            parts.append(self._code)
            theory += self._fresh.pipeline.theory_bytes(self._layout)
        return self._pack(base, str(self._fresh), parts, round(theory))
