"""The sum of a round whose uplink is summed before it is decoded: sums of circles come, whole numbers, and no update.

The steps of a round's grid follow from the sums before it (`featherfed.codec.steps`), and are kept with the model. Of
a tree they are the root's, which sees the whole sum: a gateway is told them, and hands up what its circles add to it.
With differential privacy they follow from what was set alone (`featherfed.server.circle_noise`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

import msgpack
import numpy as np
import numpy.typing as npt

from featherfed.by_round import ByRound
from featherfed.codec.layout import Layout
from featherfed.codec.partial_sum import PartialSum, partial_sum_bytes, width_of
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
TERMS = "circles.terms"
"""What an open round's circles were dealt by (`CircleSums.terms`), with its number, in the store."""
ROUND, ANNOUNCED = "grid.round", "grid.steps"
"""On a gateway: what the root has announced last, with the gateway's life."""


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
        self._key = RoundKey(config.seed, 0)
        if config.gateways:
            # What comes is a partial sum; its circles may be of any size up to the largest.
            self.payload_bytes = config.by_round(lambda number: self._partial_bytes(number, 1))
            self.max_update_bytes = config.by_round(lambda number: self._partial_bytes(number, self.members(number)))
        else:
            self.payload_bytes = config.by_round(lambda number: self.upload_bytes(number, 0, 0))
            self.max_update_bytes = config.by_round(lambda number: self.upload_bytes(number, 0, self.members(number)))
        self._announced: tuple[int, bytes] | None = None
        self.life = 0
        """Of a gateway: how many times it has come to its root without its memory."""
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
        self.servers_noise = None if noise is None else noise.noise()
        if noise is not None:
            self.steps = noise.steps(summable.num_blocks)
        elif self._announced is None:
            self.steps = summable.steps(self._state, members=members)
        else:
            known, self.steps = self._announced
            assert known == round_number, "a gateway opens the round that its root has announced"
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

    def follow(self, round_number: int, steps: bytes, life: int) -> None:
        """Take the steps of a round from the root, and which life this gateway is in.

        Raises `CodecError` for steps of another model, and for others than a sum that is begun has.
        """
        self.uplink.at(round_number).step_sizes(steps)
        if self._sum is not None and self._announced is not None and self._announced != (round_number, steps):
            known, _ = self._announced
            if known == round_number:
                raise CodecError(f"round {round_number} was begun with other steps than its root announces now")
        self._announced, self.life = (round_number, steps), life

    def terms(self, round_number: int) -> dict[str, Any]:
        """Return what a round's circles are made by, under its name in config.toml: JSON values.

        All of it is in the keys of what phones have masked, or in the price of their sums: it cannot change while a
        round is open.
        """
        summable, plan = self.uplink.at(round_number), plan_of(self._config, round_number)
        terms: dict[str, Any] = {
            "uplink": str(summable.pipeline), "clip_norm": summable.clip, "circle": plan.size, "slices": plan.slices,
            "cohort": self._config.cohort_size_at(round_number), "secure": plan.masked, "dp": self._config.dp,
        }  # fmt: skip
        if (noise := self.noise_of(round_number)) is not None:
            terms["noise_multiplier"] = noise.noise_multiplier
            if noise.promise is not None:
                terms |= {"lost": plan.lost, "colluding": noise.promise.colluding}
        return terms

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

    def merge(self, data: bytes) -> None:
        """Add a gateway's partial sum; raises `CodecError` for one of another round or other settings, or bad bytes."""
        assert self._sum is not None, "a partial sum comes in its round"
        number = self._key.round_number
        summable = self.uplink.at(number)
        whole = PartialSum.from_bytes(
            data, self._of(number), coordinates=summable.coordinates, blocks=summable.num_blocks
        )
        self._sum.merge(whole)

    @property
    def phones(self) -> int:
        """How many phones' updates are in the open sum."""
        return 0 if self._sum is None else self._sum.count

    def take_partial(self) -> bytes:
        """End the round's sum; return it as it is, for the root of a gateway."""
        number, part = self._key.round_number, self._taken().partial()
        return part.to_bytes(self._of(number), width=self._width(number))

    def _width(self, round_number: int) -> int:
        return width_of(self.uplink.at(round_number).bits, self._config.cohort_size_at(round_number))

    def _partial_bytes(self, round_number: int, sizes: int) -> int:
        summable = self.uplink.at(round_number)
        return partial_sum_bytes(summable.coordinates, summable.num_blocks, self._width(round_number), sizes=sizes)

    def _of(self, round_number: int) -> bytes:
        """Return what a partial sum of a round is known by: all that must be alike where sums are added."""
        summable, members = self.uplink.at(round_number), self.members(round_number)
        alike = [
            self._key.seed, round_number, str(summable.pipeline), self.steps, summable.clip, members,
            self._config.cohort_size_at(round_number), self._config.secure,
        ]  # fmt: skip
        return blake2b(msgpack.packb(alike), digest_size=8).digest()

    def _taken(self) -> Summed:
        total, self._sum = self._sum, None
        assert total is not None, "a round is closed once, after it was opened"
        return total

    def take(self) -> Updates:
        """End the round's sum; return its mean."""
        total = self._taken()
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
        if self._announced is not None:
            number, steps = self._announced
            return {ROUND: np.array([number, self.life]), ANNOUNCED: np.frombuffer(steps, np.uint8)}
        return {} if self._state is None else {STEPS: np.frombuffer(self._state.to_bytes(), np.uint8)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with the steps that a saved model has."""
        if ANNOUNCED in arrays:
            number, self.life = map(int, arrays[ROUND])
            self._announced = number, arrays[ANNOUNCED].tobytes()
        self._state = StepState.from_bytes(arrays[STEPS].tobytes()) if STEPS in arrays else None
