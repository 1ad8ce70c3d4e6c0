"""The sum of a round whose uplink is summed before it is decoded: sums of circles come, whole numbers, and no update.

The steps of a round's grid follow from the sums before it (`featherfed.codec.steps`), and are kept with the model. With
differential privacy they follow from what was set alone (`featherfed.server.circle_noise`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featherfed.by_round import ByRound
from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.steps import StepState
from featherfed.codec.summable import Summable
from featherfed.codec.summed import Summed
from featherfed.errors import CodecError
from featherfed.privacy.accounting import Price
from featherfed.privacy.noise import Noise
from featherfed.privacy.phones_noise import Promise
from featherfed.randomness import RoundKey
from featherfed.rules.aggregate import Updates
from featherfed.secure.circles import head_bytes
from featherfed.server.circle_noise import CircleNoise
from featherfed.server.circle_plan import clip_of, plan_of
from featherfed.server.config import RunConfig
from featherfed.server.privacy_plan import PrivacyPlan, privacy_of

WORD_BYTES = 4
"""Of the number that each update has beside its residues: 1, whose sum is the number of phones."""
STEPS = "grid"
"""What the state of the steps is called in a saved model."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Which of how many slices of the coordinates a circle sends."""

    number: int
    of: int


class CircleSums:
    """The sum of one round at a time. `steps` are those of the open round."""

    def __init__(self, config: RunConfig, uplink: ByRound[Summable]) -> None:
        """Use `CircleSums.of`."""
        self._config = config
        self.uplink = uplink
        self.payload_bytes = config.by_round(lambda number: self.upload_bytes(number, 0, 0))
        self.max_update_bytes = config.by_round(lambda number: self.upload_bytes(number, 0, self.members(number)))
        self.noise: ByRound[CircleNoise] | None = None
        """Of a run with differential privacy."""
        if (privacy := privacy_of(config)) is not None:
            self.noise = config.by_round(lambda number: self._noise(privacy, number))
        self.servers_noise: Noise | None = None
        """What the server adds to the open round's sum; a test may give another."""
        self._state: StepState | None = None
        self._sum: Summed | None = None
        self.steps = b""

    def _noise(self, privacy: PrivacyPlan, round_number: int) -> CircleNoise:
        asked, plan = self._config.cohort_size_at(round_number), plan_of(self._config, round_number)
        return CircleNoise.of(privacy, self.uplink.at(round_number), plan, asked=asked)

    @classmethod
    def of(cls, config: RunConfig, uplink: ByRound[Pipeline], layout: Layout) -> Self | None:
        """Return the sum of a run whose uplink is summed before it is decoded; of any other run, None."""
        if not uplink.first.summed:
            return None
        return cls(config, uplink.map(lambda each: Summable(each, layout, clip=clip_of(config))))

    def members(self, round_number: int) -> int:
        """Return how many phones the largest circle of a round has: its steps are made for so many."""
        return plan_of(self._config, round_number).most

    def slice_of(self, circle: int) -> Slice:
        """Return what the phones of a circle send."""
        return Slice(circle % self._config.slices, self._config.slices)

    def upload_bytes(self, round_number: int, circle: int, members: int) -> int:
        """Return how long the update of a phone is, in a circle of so many (0: one without masks)."""
        summable, sent = self.uplink.at(round_number), self.slice_of(circle)
        head = head_bytes(members) if members and self._config.secure else 0
        return head + WORD_BYTES + summable.payload_bytes(summable.count(sent.number, sent.of))

    def check(self, round_number: int, circle: int, members: int, payload: bytes) -> None:
        """Raise `CodecError` for an update that no sum of its circle, of so many members, can be made of.

        Nothing else of a masked update can be wrong by itself.
        """
        wanted = self.upload_bytes(round_number, circle, members)
        if len(payload) != wanted:
            raise CodecError(f"update of {len(payload)} bytes in a circle that sums {wanted}")
        summable, sent = self.uplink.at(round_number), self.slice_of(circle)
        count = summable.count(sent.number, sent.of)
        summable.check_packed(memoryview(payload)[wanted - summable.payload_bytes(count) :], count)

    def open(self, round_number: int) -> None:
        """Begin the sum of a round."""
        summable, members = self.uplink.at(round_number), self.members(round_number)
        noise = self.noise_of(round_number)
        self.steps = summable.steps(self._state, members=members) if noise is None else noise.steps(summable.num_blocks)
        self.servers_noise = None if noise is None else noise.noise()
        key, slices = RoundKey(self._config.seed, round_number), self._config.slices
        self._sum = Summed(
            summable,
            key,
            steps=self.steps,
            members=members,
            slices=slices,
            private=noise is not None,
            joint=self.servers_noise is not None,
        )
        self._key = key

    @property
    def promise(self) -> Promise | None:
        """What the run has promised its phones of the noise that they add; None where they add none."""
        return None if self.noise is None else self.noise.first.promise

    def noise_of(self, round_number: int) -> CircleNoise | None:
        """Return how a round's sums are noised; None without differential privacy."""
        return None if self.noise is None else self.noise.at(round_number)

    def price(self, round_number: int, members: int, survivors: int) -> Price | None:
        """Return what a circle's sum costs its survivors once it can be opened; None where it costs nothing then."""
        noise = self.noise_of(round_number)
        return None if noise is None else noise.price(members, survivors)

    def parse(self, round_number: int, circle: int, data: bytes) -> tuple[int, npt.NDArray[Any]]:
        """Return the word and the residues of an update without its head; raises `CodecError`."""
        summable, sent = self.uplink.at(round_number), self.slice_of(circle)
        count = summable.count(sent.number, sent.of)
        if len(data) != (wanted := WORD_BYTES + summable.payload_bytes(count)):
            raise CodecError(f"update of {len(data)} bytes in a circle that sums {wanted}")
        return int.from_bytes(data[:WORD_BYTES], "little"), summable.unpack(data[WORD_BYTES:], count)

    def add(self, circle: int, residues: npt.NDArray[Any], shards: tuple[int, ...]) -> list[int]:
        """Add the sum of what the phones of a circle sent; return its blocks that wrapped, and count as nothing."""
        assert self._sum is not None, "a circle is opened in its round"
        return self._sum.add_circle(residues, shards, self.slice_of(circle).number)

    def take(self) -> Updates:
        """End the round's sum; return its mean."""
        total, self._sum = self._sum, None
        assert total is not None, "a round is closed once, after it was opened"
        self._state = total.next_state(self._state)
        if not total.count:
            return Updates([], [], [], self._key)
        if self.noise is not None:
            if self.servers_noise is not None:
                total.disturb(self.servers_noise.draw)
            # By what the round wants, whatever came: see `featherfed.privacy.noise`.
            wanted = self._config.closing_updates_at(self._key.round_number)
            return Updates([total.mean(wanted)], [total.count], [], self._key)
        return Updates([total.mean()], [total.count], [], self._key)

    def saved(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `restore` needs, by name."""
        return {} if self._state is None else {STEPS: np.frombuffer(self._state.to_bytes(), np.uint8)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with the steps that a saved model has."""
        self._state = StepState.from_bytes(arrays[STEPS].tobytes()) if STEPS in arrays else None
