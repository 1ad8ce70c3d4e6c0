"""The updates of the open round, decoded and added up as they come: of a server, of a gateway, and of their root.

Updates are folded on arrival because memory must not grow with the cohort; the sum is exact (featherfed.codec), so the
order of arrival does not matter. Only for an aggregate that needs all of them are a round's updates kept
(`kept_updates`). Of an uplink that is summed before it is decoded, sums of circles come (`circle_sums`).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from featherfed.by_round import ByRound
from featherfed.codec import fast_loading
from featherfed.codec.exact_sum import partial_sum_bytes
from featherfed.codec.fold import Fold, Update
from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.threads import ALONE, Threads
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey
from featherfed.rules.aggregate import Aggregate, Updates
from featherfed.rules.checked import weighed
from featherfed.server.config import RunConfig
from featherfed.server.model.circle_sums import CircleSums
from featherfed.server.model.kept_updates import KeptUpdates
from featherfed.server.model.staleness import UNIT, stale_weight
from featherfed.server.privacy_plan import privacy_of


class Received(NamedTuple):
    """An update whose bytes are all here, and how many examples its phone says that it has seen."""

    round_number: int
    shard: int
    payload: bytes
    examples: int


class RoundSum:
    """The sum of one round at a time, and the limits of what is added to it. Nothing here waits.

    By round, `theory_bytes` is an update's size by the uplink's formula, and `max_update_bytes` the most that it can
    have; `max_examples` is the most that it may weigh.
    """

    def __init__(
        self, config: RunConfig, uplink: ByRound[Pipeline], layout: Layout, aggregate: Aggregate, *, max_examples: int
    ) -> None:
        self._config = config
        self.uplink = uplink
        self._layout = layout
        self._aggregate = aggregate
        self.max_examples = max_examples
        self.theory_bytes = uplink.map(lambda each: round(each.theory_bytes(layout)))
        self.max_update_bytes = uplink.map(lambda each: each.max_bytes(layout))
        if config.gateways:
            # What comes is an exact partial sum of many phones' updates; it has its weight in it.
            self.theory_bytes = self.max_update_bytes = ByRound(partial_sum_bytes(layout.size))
        self.circles = CircleSums.of(config, uplink, layout)
        if self.circles is not None:
            self.theory_bytes = self.circles.payload_bytes
            self.max_update_bytes = self.circles.max_update_bytes
            # In a sum that nobody can take apart all weigh the same; a gateway's has its weight in it.
            self.max_examples = 1
        privacy = privacy_of(config)
        self.noise = None if privacy is None else privacy.noise(layout.size)
        """Of a run with differential privacy; a test may give another."""
        self._buffered = config.mode == "async"
        self._fresh_weight = 0
        self._threads: Threads = ALONE
        self._fold: Fold | KeptUpdates | None = None
        self.open_round = 0

    def prepare(self, threads: Threads) -> None:
        """Have updates decoded by these threads, and by compiled loops where they pay; no bit of a sum depends on it.

        It may take seconds, before phones come.
        """
        self._threads = threads
        if not self._config.gateways:
            fast_loading.load_for(self._layout.size)

    def open(self, round_number: int) -> None:
        """Begin the sum of a round."""
        self.open_round = round_number
        if self.circles is not None:
            self.circles.open(round_number)
            return
        uplink = self.uplink.at(round_number)
        clip_norm = self._config.clip_norm or math.inf
        if self._aggregate.needs_all:
            self._fold = KeptUpdates(uplink, self._layout, clip_norm=clip_norm)
        else:
            key = None if self._buffered else RoundKey(self._config.seed, round_number)
            self._fresh_weight = 0
            self._fold = uplink.fold(
                self._layout, key, updates=self._config.phones, clip_norm=clip_norm, threads=self._threads
            )

    def add(self, round_number: int, shard: int, payload: bytes, examples: int) -> None:
        """Decode an update and add it to the sum; raises `CodecError` and leaves the sum alone if it is not valid."""
        (fault,) = self.add_all([Received(round_number, shard, payload, examples)])
        if fault is not None:
            raise fault

    def add_all(self, updates: Sequence[Received]) -> list[CodecError | None]:
        """Decode updates and add them to the sum; return for each what is wrong with it: such a one is left out."""
        if not isinstance(self._fold, Fold) or self._config.gateways:
            return [self._add_one(update) for update in updates]
        # A user's rule is asked once for each number of examples, of which many phones have the same.
        claims = {claim: self._weighed(claim) for claim in {update.examples for update in updates}}
        weights = [self._weight(update, claims[update.examples]) for update in updates]
        faults = self._fold.add_all(
            [Update(update.payload, self._key(update), weight) for update, weight in zip(updates, weights, strict=True)]
        )
        if self._buffered:
            counted = (update for update, fault in zip(updates, faults, strict=True) if fault is None)
            self._fresh_weight += UNIT * sum(claims[update.examples] for update in counted)
        return faults

    @property
    def adds_at_once(self) -> bool:
        """Whether what comes is added as it comes: not where circles of phones are summed first."""
        return self.circles is None or bool(self._config.gateways)

    def _add_one(self, update: Received) -> CodecError | None:
        if self.circles is not None:
            try:
                self.circles.merge(update.payload)
            except CodecError as error:
                return error
            return None
        if self._fold is None:
            return CodecError(f"round {update.round_number} is not open")
        try:
            if isinstance(self._fold, Fold):
                # A gateway's: it has its weight in it, whatever is claimed beside it.
                self._fold.merge_bytes(update.payload)
            else:
                weight = self._weight(update, self._weighed(update.examples))
                self._fold.add(update.payload, self._key(update), weight)
        except CodecError as error:
            return error
        return None

    def _key(self, update: Received) -> RoundKey:
        return RoundKey(self._config.seed, update.round_number, update.shard)

    def _weighed(self, examples: int) -> int:
        # With noise each phone counts alike: what it says of its examples is data of its own.
        return 1 if self.noise is not None else weighed(self._aggregate, examples)

    def _weight(self, update: Received, weighed: int) -> int:
        return stale_weight(weighed, self.open_round - update.round_number) if self._buffered else weighed

    @property
    def phones(self) -> int | None:
        """How many phones' updates are in the sums of gateways, at their root; None elsewhere."""
        if not self._config.gateways:
            return None
        if self.circles is not None:
            return self.circles.phones
        return self._fold.count if isinstance(self._fold, Fold) else None

    def take_updates(self) -> Updates:
        """End the round's sum; return what the aggregate is given: all updates of the round, or their mean alone."""
        if self.circles is not None:
            return self.circles.take()
        fold = self._taken()
        key = RoundKey(self._config.seed, self.open_round)
        if isinstance(fold, KeptUpdates):
            return fold.updates(key)
        if not fold.count:
            return Updates([], [], [], key)
        if self.noise is not None:
            # By what the round wants, whatever came: see `featherfed.privacy.noise`.
            fold.disturb(self.noise.draw)
            wanted = self._config.closing_updates_at(self.open_round)
            return Updates([fold.mean(wanted)], [fold.weight], [], key)
        mean = fold.mean()
        if self._buffered:
            mean *= np.float32(fold.weight / self._fresh_weight)
        return Updates([mean], [fold.weight], [], key)

    def take_partial(self) -> bytes:
        """End the round's sum; return it as it is, for the root of a gateway."""
        if self.circles is not None:
            return self.circles.take_partial()
        fold = self._taken()
        assert isinstance(fold, Fold), "an aggregate that needs all updates has no gateways"
        return fold.to_bytes()

    def _taken(self) -> Fold | KeptUpdates:
        # What is as long as the model goes as soon as it is not needed: the round's peak is at its close.
        fold, self._fold = self._fold, None
        assert fold is not None, "a round is closed once, after it was opened"
        return fold
