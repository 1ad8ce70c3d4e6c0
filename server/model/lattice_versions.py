"""Views on a lattice: one difference for every phone, from whatever version it holds (`featherfed.codec.lattice`).

The server keeps the differences between neighbouring versions as the bytes that travel, some thousandths of the model
each: these are on the disk, and the whole numbers of any version kept follow from them (`lattice_parcels`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.codec import lattice
from featherfed.codec.layout import Layout
from featherfed.codec.stage import Reader
from featherfed.codec.whole_numbers import Whole
from featherfed.errors import CodecError, ConfigError, LocalError
from featherfed.server.model.lattice_parcels import LatticeParcels, compact, difference_of, with_room
from featherfed.server.model.parcels import F32, NOTHING
from featherfed.server.model.versions import Arrays, Versions

KEPT_VERSIONS = 128
"""How many rounds a phone may miss until it gets the difference from the initial weights."""
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
        self._known: dict[int, Whole] = {}
        """The whole numbers of versions, as far as there is room for them; those of 0 and the newest one always."""

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
        numbers = self._known[self.version]
        if self._exponents is not None:
            numbers = compact(lattice.followed(weights, numbers, self._origin, self._exponents, self._layout))
        self._go_on(self.version + 1, numbers)

    def _begin(self, initial: F32) -> None:
        self._initial = self._origin = initial
        self._exponents = None
        self.steps = {}
        self._known = {0: np.zeros(self._layout.size, np.int8)}

    def _take(self, exponents: tuple[int, ...] | None) -> None:
        self._exponents = exponents
        if exponents is not None:
            self._origin = lattice.snapped(self._initial, exponents, self._layout)

    def _go_on(self, version: int, numbers: Whole) -> None:
        """Make a version of whole numbers the newest."""
        self.steps[version] = difference_of(self._known[self.version], numbers, self._exponents, self._layout)
        for old in sorted(self.steps)[:-KEPT_VERSIONS]:
            del self.steps[old]
        assert isinstance(self.parcels, LatticeParcels)
        # What was made for phones is not made again.
        self._known = with_room({**self.parcels.known(), version: numbers}, self.steps, version)
        self._stand(version, lattice.moved(self._initial, numbers, self._exponents, self._layout))

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
        self._go_on(version, compact(numbers))

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
            self._known[version] = compact(lattice.nearest(view, self._origin, self._exponents, self._layout))
        else:
            self._known[version] = self._known[0]
        self._stand(version, view)

    def _parcels(self) -> LatticeParcels:
        return LatticeParcels(
            self._layout, self.version, self._spec, self._initial, self._exponents, dict(self.steps), dict(self._known)
        )
