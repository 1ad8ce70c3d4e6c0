"""A chain of differences: each version is the one before it plus what its payload decodes to.

    s_0 = w_0,    p_t = encode(w_t - s_{t-1}),    s_t = s_{t-1} + decode(p_t)

The difference is taken against what phones hold, so whatever a lossy p_t left out is part of the next difference: the
residual of the downlink is kept by construction, and does not grow (`differences`).

A phone that holds s_h needs the chain p_{h+1}, …, p_t. Where float32 of s_t is smaller than the chain, and for a phone
that holds nothing, that is sent instead.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey
from featherfed.server.model.differences import encoded
from featherfed.server.model.parcels import F32, NOTHING, Parcel, Parcels, float32_bytes
from featherfed.server.model.versions import Arrays, Versions

_STEP = "chain."


class ChainVersions(Versions):
    """The chain of differences, kept as long as it can be cheaper than the whole model."""

    def __init__(self, layout: Layout, pipeline: Pipeline, seed: int) -> None:
        super().__init__(layout)
        self._pipeline = pipeline
        self._seed = seed
        self.chain: dict[int, bytes] = {}

    def publish(self, weights: F32) -> None:
        """Make `weights`, (parameters,) float32, the next version."""
        version = self.version + 1
        if not version:
            self._stand(version, weights.copy())
            return
        key = RoundKey(self._seed, version)
        payload, decoded = encoded(self._pipeline, weights - self.view, self._layout, key)
        self.chain[version] = payload
        self._prune(version)
        self._stand(version, self.view + decoded)

    def _prune(self, newest: int) -> None:
        whole, total = 4 * self._layout.size, 0
        for version in sorted(self.chain, reverse=True):
            total += len(self.chain[version])
            # The last difference stays whatever it costs: with float32 it is as large as the model.
            if total > whole and version != newest:
                del self.chain[version]

    def adopt(self, version: int, view: F32, initial: F32 | None, difference: bytes) -> None:
        """Take a version that another server published.

        Its difference is passed on as that from the version before where it decodes to just that, bit for bit. Else
        phones get the whole model.
        """
        chain = {}
        if version == self.version + 1:
            try:
                decoded = self._pipeline.decode(difference, self._layout, RoundKey(self._seed, version))
            except CodecError:
                decoded = np.full_like(view, np.nan)
            if np.array_equal(self.view + decoded, view):
                chain = {**self.chain, version: difference}
        self.chain = chain
        self._prune(version)
        self._stand(version, view)

    def saved(self) -> dict[str, npt.NDArray[Any]]:
        """Return the view, and the differences that are kept."""
        steps = {f"{_STEP}{version}": np.frombuffer(payload, np.uint8) for version, payload in self.chain.items()}
        return {"view": self.view, **steps}

    def restore(self, version: int, saved: Arrays) -> None:
        """Go on where a saved run stood."""
        self.chain = {
            int(name.removeprefix(_STEP)): array.tobytes() for name, array in saved.items() if name.startswith(_STEP)
        }
        self._stand(version, saved["view"])

    def _parcels(self) -> "ChainParcels":
        return ChainParcels(self._layout, self.version, self._pipeline, dict(self.chain), self.view)


class ChainParcels(Parcels):
    """The links of the chain up to one version, or that version whole."""

    def __init__(self, layout: Layout, version: int, pipeline: Pipeline, chain: dict[int, bytes], view: F32) -> None:
        super().__init__(layout, version)
        self._pipeline, self._chain, self._view = pipeline, chain, view

    def _base(self, held: int) -> int:
        return held

    def _make(self, base: int) -> Parcel:
        whole = 4 * self._layout.size
        steps = range(base + 1, self.version + 1)
        if all(step in self._chain for step in steps):
            parts = [self._chain[step] for step in steps]
            if sum(map(len, parts)) <= whole:
                theory = round(self._pipeline.theory_bytes(self._layout) * len(parts))
                return self._pack(base, str(self._pipeline), parts, theory)
        if base != NOTHING:
            # Whatever the phone holds, this is one parcel, of one digest.
            return self.parcel(NOTHING)
        return self._pack(NOTHING, "float32", [float32_bytes(self._view)], whole)
