"""Views on a lattice: one difference for every phone, from whatever version it holds (`featherfed.codec.lattice`).

The server keeps the differences between neighbouring versions as the bytes that travel, some thousandths of the model
each: these are on the disk, and the whole numbers of any version kept follow from them. In memory are also the numbers
themselves of those versions that were asked for, as bytes where they are small, within `NUMBERS_BYTES`.

A phone whose version is no longer kept gets the difference from the initial weights, which it has kept; so does one
that missed so much that this is shorter.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.codec import lattice
from featherfed.codec.layout import Layout
from featherfed.codec.stage import Reader
from featherfed.codec.whole_numbers import Whole
from featherfed.errors import CodecError, ConfigError, LocalError
from featherfed.server.model.versions import F32, NOTHING, Arrays, Parcel, Versions, float32_bytes

KEPT_VERSIONS = 128
"""How many rounds a phone may miss until it gets the difference from the initial weights."""
NUMBERS_BYTES = 256 << 20
"""Of the whole numbers of versions before the newest, in memory; what has no room is made when it is asked for."""
_STEP = "step."


class LatticeVersions(Versions):
    """The lattice, and the differences between the versions that phones may hold."""

    def __init__(self, layout: Layout, spec: lattice.Lattice) -> None:
        super().__init__(layout)
        self._spec = spec
        self._initial = self.view
        self._exponents: tuple[int, ...] | None = None
        self._origin = self._initial
        """The initial weights as they lie on the lattice, once there is one."""
        self.steps: dict[int, bytes] = {}
        """By the version that a difference leads to, from the kept version before it."""
        self._numbers: dict[int, Whole] = {}

    def publish(self, weights: F32) -> None:
        """Make `weights`, (parameters,) float32, the next version; the first one are the initial weights.

        Raises `ConfigError` for initial weights that no lattice reaches.
        """
        if self.version == NOTHING:
            if (largest := float(np.abs(weights).max(initial=0))) > lattice.FURTHEST:
                raise ConfigError(
                    f"the model begins with a weight of {largest:g}, and {self._spec} reaches to {lattice.FURTHEST:g};"
                    " choose another --downlink"
                )
            self._begin(weights.copy())
            self._stand(0, self._initial)
            return
        if self._exponents is None:
            self._take(lattice.chosen(weights - self._initial, self._initial, self._spec.factor, self._layout))
        numbers = self._numbers[self.version]
        if self._exponents is not None:
            numbers = _compact(lattice.followed(weights, numbers, self._origin, self._exponents, self._layout))
        self._go_on(self.version + 1, numbers)

    def _begin(self, initial: F32) -> None:
        self._initial = self._origin = initial
        self._exponents = None
        self.steps.clear()
        self._numbers = {0: np.zeros(self._layout.size, np.int8)}

    def _take(self, exponents: tuple[int, ...] | None) -> None:
        self._exponents = exponents
        if exponents is not None:
            self._origin = lattice.snapped(self._initial, exponents, self._layout)

    def _go_on(self, version: int, numbers: Whole) -> None:
        """Make a version of whole numbers the newest."""
        self.steps[version] = self._difference(self._numbers[self.version], numbers)
        self._numbers[version] = numbers
        self._stand(version, lattice.moved(self._initial, numbers, self._exponents, self._layout))
        for old in sorted(self.steps)[:-KEPT_VERSIONS]:
            del self.steps[old]
        self._make_room()

    def _make_room(self) -> None:
        kept = {0, self.version, *self._held()}
        for version in sorted(self._numbers):
            too_many = sum(numbers.nbytes for numbers in self._numbers.values()) > NUMBERS_BYTES
            if version not in kept or (too_many and version not in (0, self.version)):
                del self._numbers[version]

    def _held(self) -> list[int]:
        """Return the versions that phones may hold before the newest, newest first."""
        return sorted((version for version in self.steps if version != self.version), reverse=True)

    def _difference(self, base: Whole, numbers: Whole) -> bytes:
        if self._exponents is None:
            return lattice.UNCHANGED
        # Whatever the difference is, it fits: bytes are subtracted, counted and coded in half the time of longer ones.
        kind = _kind(sum(int(max(each.max(initial=0), -each.min(initial=0))) for each in (base, numbers)))
        difference = numbers.astype(kind, copy=False) - base.astype(kind, copy=False)
        return lattice.encode(difference, self._exponents, self._layout)

    def adopt(self, version: int, view: F32, initial: F32 | None, difference: bytes) -> None:
        """Take a version that another server published: its Δ stand in the difference."""
        assert initial is not None, "phones of this downlink keep the initial weights, and so do gateways"
        if self.version == NOTHING or not np.array_equal(initial, self._initial):
            self._begin(initial)
            self._stand(0, initial)
        if not version:
            return
        if self._exponents is None:
            try:
                if difference != lattice.UNCHANGED:
                    self._take(lattice.read_exponents(Reader(difference), self._layout))
            except CodecError as error:
                raise LocalError(f"the steps of version {version} are lost: {error}") from error
        numbers = np.zeros(self._layout.size, np.int32)
        if self._exponents is not None:
            numbers = lattice.nearest(view, self._origin, self._exponents, self._layout)
        if not np.array_equal(lattice.moved(initial, numbers, self._exponents, self._layout), view):
            raise LocalError(f"version {version} does not lie on the lattice of the versions before it")
        self._go_on(version, _compact(numbers))

    def saved(self) -> dict[str, npt.NDArray[Any]]:
        """Return the view, the initial weights, the exponents and the differences."""
        steps = {f"{_STEP}{version}": np.frombuffer(step, np.uint8) for version, step in self.steps.items()}
        exponents = np.array(self._exponents or (), np.int32)
        return {"view": self.view, "initial": self._initial, "exponents": exponents, **steps}

    def restore(self, version: int, saved: Arrays) -> None:
        """Go on where a saved run stood."""
        self._begin(saved["initial"])
        self._take(tuple(map(int, saved["exponents"])) or None)
        self.steps = {
            int(name.removeprefix(_STEP)): array.tobytes() for name, array in saved.items() if name.startswith(_STEP)
        }
        view: F32 = saved["view"]
        if self._exponents is not None:
            self._numbers[version] = _compact(lattice.nearest(view, self._origin, self._exponents, self._layout))
        else:
            self._numbers[version] = self._numbers[0]
        self._stand(version, view)

    def _base(self, held: int) -> int:
        return held if held <= 0 or held in self.steps else 0

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

    def _from(self, base: int) -> bytes:
        steps = self._held()
        if base and steps and base == steps[0]:
            return self.steps[self.version]
        return self._difference(self._numbers_of(base), self._numbers[self.version])

    def _numbers_of(self, base: int) -> Whole:
        """Return the numbers of a version that is kept, by way of those after it where they are not in memory."""
        if base in self._numbers:
            return self._numbers[base]
        numbers, later = self._numbers[self.version], self.version
        for version in self._held():
            if version in self._numbers:
                numbers = self._numbers[version]
            else:
                _, step = lattice.decode(self.steps[later], self._layout)
                numbers = self._numbers[version] = _compact(numbers - step)
            later = version
            if version == base:
                break
        self._make_room()
        return numbers


def _compact(numbers: npt.NDArray[np.int32]) -> Whole:
    """Return whole numbers as the smallest kind that has them."""
    return numbers.astype(_kind(int(np.abs(numbers).max(initial=0))))


def _kind(largest: int) -> type[np.int8 | np.int16 | np.int32]:
    """Return the smallest kind of whole numbers with this magnitude."""
    return np.int8 if largest < 1 << 7 else np.int16 if largest < 1 << 15 else np.int32
