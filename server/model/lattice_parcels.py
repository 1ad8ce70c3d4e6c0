"""The parcels of a version on a lattice: the difference from whatever version a phone holds.

Beside the differences between neighbouring versions, from which the whole numbers of any version kept follow, in memory
are the numbers themselves of those versions that were asked for, as bytes where they are small, within `NUMBERS_BYTES`.

A phone whose version is no longer kept gets the difference from the initial weights, which it has kept; so does one
that missed so much that this is shorter.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from featherfed.codec import lattice
from featherfed.codec.layout import Layout
from featherfed.codec.whole_numbers import Whole
from featherfed.server.model.parcels import F32, NOTHING, Parcel, Parcels, float32_bytes

NUMBERS_BYTES = 256 << 20
"""Of the whole numbers of versions before the newest, in memory; what has no room is made when it is asked for."""


class LatticeParcels(Parcels):
    """The ways to one version; a difference from an older one is counted and coded when a phone needs it."""

    quick = False

    def __init__(
        self,
        layout: Layout,
        version: int,
        spec: lattice.Lattice,
        initial: F32,
        exponents: tuple[int, ...] | None,
        steps: Mapping[int, bytes],
        known: Mapping[int, Whole],
    ) -> None:
        """`steps` are the differences by the version that each leads to, `known` whole numbers of versions.

        Those of version 0 and of this one are among them.
        """
        super().__init__(layout, version)
        self._spec, self._initial, self._exponents, self._steps = spec, initial, exponents, steps
        self._known = known

    def known(self) -> dict[int, Whole]:
        """Return the whole numbers by version that are in memory."""
        return dict(self._known)

    def _base(self, held: int) -> int:
        return held if held <= 0 or held in self._steps else 0

    def _make(self, base: int) -> Parcel:
        if base == NOTHING:
            parts = [float32_bytes(self._initial)]
            if self.version:
                parts.append(self._from(0))
        else:
            parts = [self._from(base)]
            # One round is less than all of them.
            if base and base != self._held()[0] and len(whole := self.parcel(0).payload) < len(parts[0]):
                base, parts = 0, [whole]
        # There is no formula: how much changes is the model's affair.
        return self._pack(base, str(self._spec), parts, sum(map(len, parts)))

    def _held(self) -> list[int]:
        """Return the versions that phones may hold before this one, newest first."""
        return sorted((version for version in self._steps if version != self.version), reverse=True)

    def _from(self, base: int) -> bytes:
        steps = self._held()
        if base and steps and base == steps[0]:
            return self._steps[self.version]
        return difference_of(self._numbers_of(base), self._known[self.version], self._exponents, self._layout)

    def _numbers_of(self, base: int) -> Whole:
        """Return the numbers of a version that is kept, by way of the next ones that are in memory."""
        if base in self._known:
            return self._known[base]
        found = dict(self._known)
        later = min(version for version in found if version > base)
        numbers = found[later]
        for version in (each for each in self._held() if base <= each < later):
            _, step = lattice.decode(self._steps[later], self._layout)
            numbers = found[version] = compact(numbers - step)
            later = version
        if _taken(found) <= NUMBERS_BYTES:
            # In place of the mapping, which another thread may be copying.
            self._known = found
        return numbers


def with_room(known: Mapping[int, Whole], steps: Collection[int], newest: int) -> dict[int, Whole]:
    """Return the whole numbers of those versions that phones may hold, and for which there is room.

    Those that go lie between others that stay: what is asked for again is never many differences away.
    """
    kept = {version: known[version] for version in sorted(known) if version in (0, newest) or version in steps}
    while _taken(kept) > NUMBERS_BYTES and len(kept) > 2:
        order = list(kept)
        del kept[min(zip(order, order[1:], order[2:], strict=False), key=lambda each: each[2] - each[0])[1]]
    return kept


def _taken(known: Mapping[int, Whole]) -> int:
    return sum(numbers.nbytes for numbers in known.values())


def difference_of(base: Whole, numbers: Whole, exponents: Sequence[int] | None, layout: Layout) -> bytes:
    """Return the difference between two versions as it travels."""
    if exponents is None:
        return lattice.UNCHANGED
    # Whatever the difference is, it fits: bytes are subtracted, counted and coded in half the time of longer ones.
    kind = _kind(sum(int(max(each.max(initial=0), -each.min(initial=0))) for each in (base, numbers)))
    difference = numbers.astype(kind, copy=False) - base.astype(kind, copy=False)
    return lattice.encode(difference, exponents, layout)


def compact(numbers: npt.NDArray[np.int32]) -> Whole:
    """Return whole numbers as the smallest kind that has them."""
    return numbers.astype(_kind(int(np.abs(numbers).max(initial=0))))


def _kind(largest: int) -> type[np.int8 | np.int16 | np.int32]:
    """Return the smallest kind of whole numbers with this magnitude."""
    return np.int8 if largest < 1 << 7 else np.int16 if largest < 1 << 15 else np.int32
