"""What phones hold of the model, and the cheapest parcel that brings one up to date.

The server's model after round t is w_t. Phones never see w_t itself but s_t, which all phones that are up to date hold
bit for bit:

    s_0 = w_0,    p_t = encode(w_t - s_{t-1}),    s_t = s_{t-1} + decode(p_t)

The difference is taken against what phones hold, so whatever a lossy p_t left out is part of the next difference: the
residual of the downlink is kept by construction. It must not grow, though. With d = decode(encode(x)) it is x − d, and
longer than x where the vNMSE is above 1. So of each tensor a·x is encoded, with the a = ⟨x, d⟩ / ⟨d, d⟩ that leaves
least. Phones need not know a, and after an unbiased code vNMSE / (1 + vNMSE) of ‖x‖² is left, always less than all.

A phone that holds s_h needs the chain p_{h+1}, …, p_t. Where float32 of s_t is smaller than the chain, and for a
phone that holds nothing, that is sent instead.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.sums import product
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey

F32 = npt.NDArray[np.float32]
NEARLY_ALL = 0.99
"""A multiple above this is not worth a second encoding."""


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


class Versions:
    """The chain of differences, kept as long as it can be cheaper than the whole model."""

    def __init__(self, layout: Layout, pipeline: Pipeline, seed: int) -> None:
        self._layout = layout
        self._pipeline = pipeline
        self._seed = seed
        self.version = -1
        self.view: F32 = np.zeros(layout.size, np.float32)
        self.chain: dict[int, bytes] = {}
        self._parcels: dict[int, Parcel] = {}

    def publish(self, weights: F32) -> None:
        """Make `weights`, (parameters,) float32, the next version."""
        self.version += 1
        key = RoundKey(self._seed, self.version)
        payload, decoded = self._encode(weights - self.view, key)
        self.view = self.view + decoded
        self.chain[self.version] = payload
        self._parcels.clear()
        self._prune()

    def _prune(self) -> None:
        whole, total = 4 * self._layout.size, 0
        for version in sorted(self.chain, reverse=True):
            total += len(self.chain[version])
            # The last difference stays whatever it costs: with float32 it is as large as the model.
            if total > whole and version != self.version:
                del self.chain[version]

    def _encode(self, difference: F32, key: RoundKey) -> tuple[bytes, F32]:
        """Return the payload of the multiple of `difference` that leaves least of it, and what it decodes to.

        `difference` may be changed: a copy would be one more vector as long as the model.
        """
        payload, decoded = self._try(difference, key)
        start, least = 0, 1.0
        for part in self._pipeline.space(self._layout, key).parts:
            place = slice(start, start + part.size)
            start += part.size
            length = product(decoded[place], decoded[place])
            if length and not part.exact:
                factor = min(max(product(difference[place], decoded[place]) / length, 0.0), 1.0)
                difference[place] *= np.float32(factor)
                least = min(least, factor)
        if least > NEARLY_ALL:
            return payload, decoded
        del decoded
        return self._try(difference, key)

    def _try(self, difference: F32, key: RoundKey) -> tuple[bytes, F32]:
        """Return what `difference` is encoded to, and what that decodes to."""
        payload = self._pipeline.encode(difference, self._layout, key).payload
        return payload, self._pipeline.decode(payload, self._layout, key)

    def adopt(self, version: int, view: F32, payload: bytes) -> None:
        """Take a version that another server published; `payload` is what came of it, a difference or not.

        It is passed on as the difference from the version before where it decodes to just that, bit for bit. Else
        phones get the whole model.
        """
        chain = {}
        if version == self.version + 1:
            try:
                decoded = self._pipeline.decode(payload, self._layout, RoundKey(self._seed, version))
            except CodecError:
                decoded = np.full_like(view, np.nan)
            if np.array_equal(self.view + decoded, view):
                chain = {**self.chain, version: payload}
        self.restore(version, view, chain)
        self._prune()

    def restore(self, version: int, view: F32, chain: dict[int, bytes]) -> None:
        """Go on where a saved run stood."""
        self.version, self.view, self.chain = version, view, dict(chain)
        self._parcels.clear()

    def parcel(self, held: int) -> Parcel:
        """Return the cheapest way from version `held` (−1: nothing) to the current one; phones share it."""
        base = held if -1 <= held < self.version else -1
        if base not in self._parcels:
            self._parcels[base] = self._make(base)
        return self._parcels[base]

    def _make(self, held: int) -> Parcel:
        whole = 4 * self._layout.size
        for base in (held, -1):
            steps = range(base + 1, self.version + 1)
            if all(step in self.chain for step in steps):
                parts = [self.chain[step] for step in steps]
                if sum(map(len, parts)) <= whole:
                    theory = round(self._pipeline.theory_bytes(self._layout) * len(parts))
                    return self._pack(base, str(self._pipeline), parts, theory)
        return self._pack(-1, "float32", [self.view.astype("<f4").tobytes()], whole)

    def _pack(self, base: int, spec: str, parts: list[bytes], theory: int) -> Parcel:
        payload = b"".join(parts)
        digest = blake2b(payload, digest_size=8).digest()
        # A whole model in float32 has one part, whatever lies between its base and its version.
        return Parcel(self.version, base, spec, tuple(map(len, parts)), payload, digest, theory)
