"""Phones as `fl-edge` plays them, on links that break, in processes that are killed, at any moment, in virtual time."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from featherfed.bandwidth_sim.link import LinkSpec
from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.virtual import VirtualDialer
from featherfed.edge_client.learner import Learner, NoiseLearner, Trained
from featherfed.edge_client.phone import NoShardHereError, Phone, RunPausedError
from featherfed.edge_client.phone_context import PhoneSettings
from featherfed.edge_client.phone_state import PhoneState
from featherfed.errors import DivergedError, LocalError

from .world import HOST, LINKS, PORT, TRAINS_S, World


class WholePhone:
    """One phone over all of its lives; `kept` as with a state directory, or else a kill costs its memory."""

    def __init__(self, world: World, number: int, *, kept: bool, servers: tuple[str, ...] = ()) -> None:
        self.world, self.number, self.kept = world, number, kept
        self.random = random.Random(f"{world.seed} whole {number}")
        self.name, self.state = f"w{number}", PhoneState(None)
        self.servers = servers or (f"ws://{HOST}:{PORT}",)
        self.end = ""
        rate = self.random.choice(LINKS)
        spec = LinkSpec(rate_bytes_per_s=rate, delay_s=self.random.choice((0.0, 0.02, 0.3)))
        self.dialer = VirtualDialer(Profile("link", spec, spec, "none"), number)

    @property
    def calm(self) -> bool:
        return self.world.calm.is_set()

    async def live(self) -> None:
        """Play until the run is over."""
        draw = self.random
        await self._waits(draw.choice((0.0, 0.0, 0.1, 5.0, 30.0)))
        while not self.end:
            if self.state.name_phone(self.name) and not self.kept and draw.random() < 0.3 and not self.calm:
                self.state = PhoneState(None)
            phone = Phone(
                PhoneSettings(server=self.servers[0], others=self.servers[1:]), name=self.name, phone_state=self.state,
                dialer=self.dialer, make_learner=NoiseLearner, say=self._say, trains=self._trains,
            )  # fmt: skip
            playing = asyncio.create_task(phone.run())
            try:
                await self._disturb(playing)
                if playing.done():
                    self.end = await playing
            except (RunPausedError, NoShardHereError) as error:
                self._say(str(error))
                await asyncio.sleep(2.0)
            except LocalError as error:
                self._say(str(error))
                if self.world.over:
                    self.end = "untold"
                await asyncio.sleep(2.0)
            finally:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)

    def _say(self, sentence: str) -> None:
        self.world.note(f"{self.name} {sentence}")
        if "broke the protocol" in sentence or "has a newer connection" in sentence:
            self.world.faults.append(f"{self.name}: {sentence}")

    async def _waits(self, seconds: float) -> None:
        await asyncio.wait({self.world.calm_task}, timeout=seconds)

    async def _disturb(self, playing: "asyncio.Task[str]") -> None:
        """Break its connections until it is calm, the run is over, or it is killed."""
        draw = self.random
        while not playing.done():
            if self.calm:
                await asyncio.wait({playing})
                return
            seconds = draw.choice((0.003, 0.1, 1.0, 5.0, 40.0)) * draw.random()
            await asyncio.wait({playing, self.world.calm_task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if self.calm or playing.done():
                continue
            drawn = draw.random()
            if drawn < 0.15:
                self.world.note(f"{self.name} is killed")
                return
            if drawn < 0.6:
                how = draw.choice(("reset", "close", "stall"))
                self.world.note(f"the link of {self.name} ends: {how}")
                self.dialer.link.end(how)

    def _trains(
        self, learner: Learner, weights: Any, task: Any, residual: Any, stopped: Callable[[], bool]
    ) -> "asyncio.Future[Trained | None]":
        return asyncio.ensure_future(self._train(learner, weights, task, residual, stopped))

    async def _train(
        self, learner: Learner, weights: Any, task: Any, residual: Any, stopped: Callable[[], bool]
    ) -> Trained | None:
        draw, seconds = self.random, TRAINS_S
        if not self.calm and draw.random() < 0.4:
            seconds = draw.choice((0.0, 1.0, 5.0, self.world.deadline_s * 1.1))
            if draw.random() < 0.05:
                raise DivergedError(round_number=task.round, steps=1, lr=0.1, loss=float("inf"))
        end_s = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end_s:
            if stopped():
                return None
            await self._waits(0.1)
            if self.calm:
                end_s = min(end_s, asyncio.get_running_loop().time() + TRAINS_S)
                await asyncio.sleep(0.1)
        return learner.train(weights, task, residual, stopped)

    async def close(self) -> None:
        """End whatever is left of this phone."""
        self.dialer.link.end("reset")
