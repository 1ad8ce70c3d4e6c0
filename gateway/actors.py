"""Gateways as Ray actors: Ray starts one again whose worker or node died, on whatever node has room."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from featherfed.errors import LocalError
from featherfed.gateway.processes import outcome
from featherfed.gateway.reports import Ended, Failed, GatewayDiedError, Listening, Report
from featherfed.gateway.serving import GatewayPlan, reached

LISTEN_S = 5.0
"""How long one question for news waits for an answer."""
AGAIN_S = 0.5


class GatewayActor:
    """One gateway in a worker of Ray's; `serve` and `news` are called at the same time, by two threads."""

    def __init__(self) -> None:
        self._reports: list[Report] = []
        self._condition = threading.Condition()

    def serve(self, plan: GatewayPlan) -> Ended | Failed:
        """Play the gateway to its end."""
        return outcome(plan, self._report)

    def news(self, seen: int) -> list[Report]:
        """Return what was reported after the first `seen` reports, or nothing after a while."""
        with self._condition:
            self._condition.wait_for(lambda: len(self._reports) > seen, LISTEN_S)
            return self._reports[seen:]

    def node(self) -> str:
        """Return the address of the machine that this is."""
        import ray

        ours: Any = ray.util
        return str(ours.get_node_ip_address())

    def _report(self, report: Report) -> None:
        with self._condition:
            self._reports.append(report)
            self._condition.notify_all()


class ActorHost:
    """One actor, with as many lives as it needs."""

    def __init__(self, ray: Any, *, any_host: bool) -> None:
        """`any_host`: gateways listen on every address of their machine, whose own is told to phones."""
        self.place = ""
        self._ray, self._any_host = ray, any_host
        # Spread, so that the end of one node is that of few gateways.
        made = ray.remote(GatewayActor).options(
            num_cpus=1, max_restarts=-1, max_task_retries=0, max_concurrency=3, scheduling_strategy="SPREAD"
        )
        self._actor = made.remote()

    async def play(self, plan: GatewayPlan, report: Callable[[Report], None]) -> str:
        """Return the gateway's last sentence; see `GatewayHost`."""
        try:
            # Until the actor has a worker: the first one, or that of its next life.
            self.place = await self._alive()
            telling = asyncio.create_task(self._tell(report))
            try:
                ended = await self._call(self._actor.serve, plan)
            finally:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)
        except asyncio.CancelledError:
            self._ray.kill(self._actor, no_restart=True)
            raise
        except self._ray.exceptions.RayActorError as error:
            raise GatewayDiedError(f"Ray: {type(error).__name__}") from error
        except self._ray.exceptions.RayTaskError as error:
            raise GatewayDiedError(repr(error.cause)) from error
        self._ray.kill(self._actor, no_restart=True)
        if isinstance(ended, Failed):
            raise ended.error(plan.index)
        return str(ended.sentence)

    async def _alive(self) -> str:
        while True:
            try:
                return str(await self._call(self._actor.node))
            except self._ray.exceptions.ActorUnavailableError:
                await asyncio.sleep(AGAIN_S)
            except self._ray.exceptions.RayActorError as error:
                raise LocalError(f"Ray has given a gateway up: {' '.join(str(error).split())[:200]}") from error

    async def _tell(self, report: Callable[[Report], None]) -> None:
        seen = 0
        # Where the actor dies, whoever waits for its end hears of it.
        with contextlib.suppress(self._ray.exceptions.RayError):
            while True:
                for message in await self._call(self._actor.news, seen):
                    seen += 1
                    report(self._placed(message))

    def _placed(self, message: Report) -> Report:
        """Return a report with the address that phones can use."""
        if not (self._any_host and isinstance(message, Listening)):
            return message
        return replace(message, address=reached(message.address, self.place))

    async def _call(self, method: Any, *arguments: object) -> Any:
        return await asyncio.wrap_future(method.remote(*arguments).future())
