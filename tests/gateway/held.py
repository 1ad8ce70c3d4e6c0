"""Real phones that send noise, one of them in one round only when it may: so that round has a middle."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from featherfed.edge_client import backoff
from featherfed.edge_client.learner import Learner, NoiseLearner, Trained
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.rules.select import SelectKey
from featherfed.rules.selections import Uniform
from featherfed.server.rounds.cohort import choose_cohort
from featherfed.wire.messages import Task, Welcome


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the phones of this process come back within half a second, however often they failed.

    One that waits half a minute for its gateway would miss the end of its run, and look for it until its patience ends.
    """
    monkeypatch.setattr(backoff, "CAP_S", 0.5)


Place = tuple[int, int]
"""A round and a shard."""


class HeldPhones:
    """The phones of a run with these settings.

    Of the shards in `row` that are asked in a round, the last one's update waits for `may`. `trained` counts trainings.
    `options` are more of the phones'.
    """

    def __init__(self, settings: dict[str, Any], row: Sequence[int], round_number: int, **options: Any) -> None:
        self._options = {"patience_s": 100.0, **options}
        shards = range(settings["phones"])
        key = SelectKey(settings["seed"], round_number, 0)
        cohort = choose_cohort(Uniform(), {}, shards, settings["cohort"], key)
        asked = [(round_number, shard) for shard in cohort if shard in row]
        assert len(asked) > 1, "one of them has sent its update, another has not"
        self.held, self._others, self._count = asked[-1], set(asked[:-1]), len(shards)
        self.also: set[Place] = set()
        """More places that are held."""
        self.may = threading.Event()
        self.trained: Counter[Place] = Counter()
        self._accepted: set[Place] = set()

    def start(self, servers: Sequence[str]) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(self._play(f"p{number}", servers)) for number in range(self._count)]

    async def in_the_middle(self) -> None:
        """Return when the updates of the row are accepted, but for the one that is held."""
        while not self._others <= self._accepted:
            await asyncio.sleep(0.01)

    async def end(self, playing: Sequence["asyncio.Task[str]"]) -> None:
        """Return when all have ended; one that looked for its gateway while the last round ended has missed it."""
        ends = await asyncio.wait_for(asyncio.gather(*playing, return_exceptions=True), 200)
        words = [str(end) for end in ends]
        done = words.count("all 3 rounds are done")
        assert done and done + sum(word.startswith("no server at") for word in words) == len(words), words

    async def _play(self, name: str, servers: Sequence[str]) -> str:
        shard = -1

        class Local:
            """Stands in for a problem that would train."""

            def __init__(self, name: str, device: str) -> None:
                pass

            def prepare(local, data_dir: str | None) -> None:
                pass

            def learner(local, welcome: Welcome, data_dir: str | None) -> Learner:
                nonlocal shard
                shard = welcome.shard
                return HeldLearner(welcome, self)

        def say(line: str) -> None:
            if line.endswith(": accepted"):
                self._accepted.add((int(line.split()[1].rstrip(":")), shard))

        options = PhoneOptions(server=servers[0], others=tuple(servers[1:]), name=name, **self._options)
        return await play_phone(options, say, make_local=Local)


class HeldLearner(NoiseLearner):
    """Sends noise, when it may."""

    def __init__(self, welcome: Welcome, phones: HeldPhones) -> None:
        super().__init__(welcome)
        self._shard, self._phones = welcome.shard, phones

    def train(
        self, weights: npt.NDArray[np.float32], task: Task, residual: npt.NDArray[np.float32] | None,
        stopped: Callable[[], bool],
    ) -> Trained | None:  # fmt: skip
        place = (task.round, self._shard)
        while place in {self._phones.held, *self._phones.also} and not self._phones.may.wait(0.01):
            if stopped():
                return None
        self._phones.trained[place] += 1
        return super().train(weights, task, residual, stopped)
