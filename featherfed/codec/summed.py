"""The sum of a round's circles: whole numbers until it is divided, the same bits in any order.

Of a circle of n phones the server has Q = Σq mod 2^r, and all it adds is their dithers, u = (2w + 1)/2¹⁷ − ½:

    S = Q·2¹⁷ − Σ(2w + 1) + n·2¹⁶, brought into [−2^(r+16), 2^(r+16)) modulo 2^(r+17): in units of 2⁻¹⁷ steps

Circles that send the same slice add up, each coordinate's mean is SΔ/(2¹⁷n) over the phones that sent it, and zero
where none did. Then come the inverse rotation and all that is linear, once.

Where phones round privately (differential privacy) there are no dithers, S is Q·2¹⁷ in half a modulus around zero, and
nothing is measured: steps that followed from sums would say more of phones than the noise allows. Noise may be added to
S, in the same units, before it is divided.

A block of a circle whose RMS is above 0.24·2^r steps has wrapped: it counts as nothing, and its next step is twice as
large. What the RMS of the others says of the next round's sums is in `steps`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from featherfed.codec import steps as stepping
from featherfed.codec.partial_sum import MOST_PHONES, PartialSum
from featherfed.codec.space import F32
from featherfed.codec.stage import finite
from featherfed.codec.steps import StepState
from featherfed.codec.summable import DITHER_BITS, Summable, dither
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey

UNIT_BITS = DITHER_BITS + 1
"""Sums are whole numbers of 2⁻¹⁷ steps."""
_COARSE = 9
"""Bits that are cut off before squares are summed, which is exact then: (2²⁴)² · 12288 < 2⁶³."""


class Summed:
    """One round's sum, for steps that were made for circles of `members`; `count` phones are in it.

    `private`: phones round privately, without a dither, and nothing is told of the next steps. `joint`: noise is yet to
    come (`disturb`), so that the circles are one sum modulo 2^r until then: what one phone can do to it is no more than
    what it adds, whatever others add.
    """

    def __init__(
        self, summable: Summable, key: RoundKey, *, steps: bytes, members: int, slices: int = 1,
        private: bool = False, joint: bool = False,
    ) -> None:  # fmt: skip
        """Raise `CodecError` for steps of another model, `SpecError` for slices that there cannot be."""
        if not private:
            summable.check(members=members, slices=slices)
        self._private, self._joint = private, joint
        self._summable, self._key, self._steps, self._members, self._slices = summable, key, steps, members, slices
        self._sizes = summable.step_sizes(steps)
        self._sums: dict[int, npt.NDArray[np.int64]] = {}
        self._phones = np.zeros((slices, summable.num_blocks), np.int64)
        self._clients: set[int] = set()
        self._merged = 0
        # By the size of a circle, so that nothing is divided before all are in: block by block.
        self._squares: dict[int, list[int]] = {}
        self._values: dict[int, list[int]] = {}
        self._overflowed: set[int] = set()

    @property
    def count(self) -> int:
        """Phones in the sum."""
        return len(self._clients) + self._merged

    @property
    def overflowed(self) -> tuple[int, ...]:
        """Blocks that wrapped in a circle."""
        return tuple(sorted(self._overflowed))

    def add_circle(self, residues_sum: npt.NDArray[np.integer], clients: Sequence[int], slice_: int = 0) -> list[int]:
        """Add the sum of what `clients`, the phones of a circle, sent of a slice; return the blocks that wrapped.

        `residues_sum`: (coordinates of the slice,), of which only residues modulo 2^r count. Raises `CodecError` for
        another length, without phones, and for a phone that is in the sum already.
        """
        summable = self._summable
        if residues_sum.shape != (count := summable.count(slice_, self._slices),):
            raise CodecError(f"a sum of shape {residues_sum.shape} came for {count} coordinates of slice {slice_}")
        if not clients:
            raise CodecError(f"the sum of slice {slice_} is that of no phone")
        if twice := sorted(self._clients.intersection(clients)) or len(set(clients)) < len(clients):
            raise CodecError(f"phones {twice if isinstance(twice, list) else list(clients)} would count twice in a sum")
        total = self._centred(residues_sum, clients)
        held = self._sums.setdefault(slice_, np.zeros(count, np.int64))
        squares = self._squares.setdefault(len(clients), [0] * summable.num_blocks)
        values = self._values.setdefault(len(clients), [0] * summable.num_blocks)
        longest = self._longest
        wrapped = []
        for block, run in summable.runs(slice_, self._slices):
            if self._private:
                held[run] += total[run]
                self._phones[slice_, block] += len(clients)
                continue
            coarse = total[run] >> _COARSE
            square, size = int((coarse * coarse).sum()), run.stop - run.start
            if square > longest * longest * size:
                wrapped.append(block)
                continue
            held[run] += total[run]
            self._phones[slice_, block] += len(clients)
            squares[block] += square
            values[block] += size
        self._clients.update(clients)
        self._overflowed.update(wrapped)
        return wrapped

    @property
    def _longest(self) -> float:
        """The largest RMS, cut by `_COARSE` bits, of a block's sum that has not wrapped."""
        return stepping.OVERFLOW * (1 << (self._summable.bits + UNIT_BITS - _COARSE))

    def partial(self) -> PartialSum:
        """Return the sum as it is, for a server that merges several: of rounds without slices."""
        assert self._slices == 1, "a sum of slices has several counts a block"
        sums = self._sums.get(0)
        return PartialSum(
            self.count,
            np.zeros(self._summable.coordinates, np.int64) if sums is None else sums,
            tuple(map(int, self._phones[0])),
            frozenset(self._overflowed),
            {size: tuple(row) for size, row in self._squares.items()},
            {size: tuple(row) for size, row in self._values.items()},
        )

    def merge(self, part: PartialSum) -> None:
        """Add another part of the same round's sum: the same bits as if its circles had been added here.

        Raises `CodecError`, and adds nothing, for one that no circles of this round give.
        """
        self._check_part(part)
        held = self._sums.setdefault(0, np.zeros(self._summable.coordinates, np.int64))
        held += part.sums
        self._phones[0] += np.array(part.counts, np.int64)
        for size, squares in part.squares.items():
            for into, news in ((self._squares, squares), (self._values, part.values[size])):
                row = into.setdefault(size, [0] * self._summable.num_blocks)
                for block, number in enumerate(news):
                    row[block] += number
        self._overflowed.update(part.wrapped)
        self._merged += part.phones

    def _check_part(self, part: PartialSum) -> None:
        summable = self._summable
        if self.count + part.phones > MOST_PHONES:
            raise CodecError(f"{self.count + part.phones} phones exceed the {MOST_PHONES} of one sum")
        if odd := [size for size in part.squares if not 1 <= size <= self._members]:
            raise CodecError(f"partial sum of circles of {odd[0]}, in a round whose steps are for {self._members}")
        longest = self._longest * self._longest
        for block, run in summable.runs():
            phones = part.counts[block]
            if phones > part.phones:
                raise CodecError(f"block {block} of a partial sum of {part.phones} phones is of {phones}")
            # Each circle's sum lies in half a modulus around zero, and has a phone at least.
            most = phones << (summable.bits + DITHER_BITS)
            if int(part.sums[run].max()) > most or int(part.sums[run].min()) < -most:
                raise CodecError(f"block {block} of a partial sum exceeds what {phones} phones can have sent")
            for size, squares in part.squares.items():
                if squares[block] > longest * part.values[size][block]:
                    raise CodecError(f"block {block} of a partial sum has wrapped, and is called whole")
                if part.values[size][block] * size > phones * (run.stop - run.start):
                    raise CodecError(f"block {block} of a partial sum counts circles of {size} that it has not")

    def _centred(self, residues_sum: npt.NDArray[np.integer], clients: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the sum without its dithers, in 2⁻¹⁷ steps, in half a modulus around zero."""
        total = residues_sum.astype(np.int64)
        total <<= UNIT_BITS
        if self._joint:
            return total
        half = 1 << (self._summable.bits + UNIT_BITS - 1)
        if not self._private:
            drawn = np.zeros(len(residues_sum), np.int64)
            for client in clients:
                drawn += dither(RoundKey(self._key.seed, self._key.round_number, client), len(drawn))
            drawn <<= 1
            total -= drawn
            # All phones' (2w + 1) and n·2¹⁶.
            total += len(clients) * ((1 << DITHER_BITS) - 1)
        # Half a modulus, which goes again.
        total += half
        total &= 2 * half - 1
        total -= half
        return total

    def disturb(self, draw: Callable[[int], npt.NDArray[np.int64]]) -> None:
        """Add whole multiples of 2⁻¹⁷ steps to each coordinate: `draw` returns so many, each below 2⁶² in size."""
        for sums in self._sums.values():
            sums += draw(len(sums))

    def mean(self, of: int = 0) -> F32:
        """Return the mean update, (parameters,) float32; zero where no phone's sum is known.

        `of`: divide by it, in place of how many phones are in the sum.
        """
        summable, slices = self._summable, self._slices
        values = np.zeros(summable.coordinates, np.float32)
        half = 1 << (summable.bits + UNIT_BITS - 1)
        for slice_, held in self._sums.items():
            sums = ((held + half) & (2 * half - 1)) - half if self._joint else held
            mine = values[slice_::slices]
            for block, run in summable.runs(slice_, slices):
                if phones := int(self._phones[slice_, block]):
                    mine[run] = sums[run] * (self._sizes[block] / ((of or phones) << UNIT_BITS))
        space = summable.pipeline.space(summable.layout, self._key.shared())
        return finite(space.expand(summable.spread(values, self._key)))

    def next_state(self, before: StepState | None) -> StepState | None:
        """Return what this sum says of the next round's steps; `before` is the state that gave this one's."""
        if self._private:
            return None
        measured = [None if block in self._overflowed else self._deviation(block) for block in range(len(self._steps))]
        return StepState.after(
            before, measured, self._steps, self._overflowed,
            coordinates=self._summable.coordinates, members=self._members, bits=self._summable.bits,
        )  # fmt: skip

    def _deviation(self, block: int) -> float | None:
        """Return σ of a block's coordinates in a sum of `members`, in steps; None where no sum is known."""
        values = sum(by_block[block] for by_block in self._values.values())
        if not values:
            return None
        variance, unit = 0.0, float(1 << 2 * (UNIT_BITS - _COARSE))
        for phones in sorted(self._squares):
            grid = self._values[phones][block] * phones / 12
            # A circle that lost phones stands for a whole one whose updates are all alike, the largest there can be.
            share = self._members / phones
            variance += (self._squares[phones][block] / unit - grid) * (share * share)
        least = stepping.FLOOR * stepping.FLOOR * self._members / 12
        return math.sqrt(max(variance / values, least))
