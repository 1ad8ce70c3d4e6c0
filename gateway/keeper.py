"""Beside a root: starts its gateways when it listens, starts those again that die, and says where they are."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

from featherfed.errors import LocalError
from featherfed.gateway.reports import GatewayDiedError, Gathered, Listening, Report, log_file
from featherfed.gateway.serving import GatewayPlan, gateway_rules
from featherfed.server.rounds.farewell import STAY_S
from featherfed.server.rounds.round_machine import Phase
from featherfed.server.service import Service
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.watchers.watcher import Watcher, Watchers

DEATHS = 3
"""So many in a row before it listened are no accident."""
AGAIN_S = 0.5
GOODBYE_S = 15.0
"""How long gateways may take to say goodbye to the phones that they have when the run is over."""
SAY_S = 5.0
"""After so long it is said that they stay for phones that are away."""


class GatewayHost(Protocol):
    """Where one gateway runs: it is played there, and played again when it has died."""

    async def play(self, plan: GatewayPlan, report: Callable[[Report], None]) -> str:
        """Return the gateway's last sentence.

        Raises `FeatherfedError` where it cannot go on, `GatewayDiedError` where it may be played again. Cancelled, it
        leaves nothing behind.
        """

    @property
    def place(self) -> str:
        """What to call the machine, if it is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """The gateways of one root: `plan(index, url, folder)` says what each one is.

    `gateway_host()` gives it a place to run.
    """

    gateways: int
    plan: Callable[[int, str, RunFolder], GatewayPlan]
    gateway_host: Callable[[], GatewayHost]

    @contextlib.asynccontextmanager
    async def beside(self, service: Service, folder: RunFolder, watchers: Watchers) -> AsyncIterator[None]:
        """Run beside the root; a gateway that cannot be kept ends it."""
        kept = _Kept(self, service, folder, watchers)
        watchers.add(kept)
        try:
            yield
        finally:
            await kept.end()


class _Kept(Watcher):
    def __init__(self, keeper: Keeper, service: Service, folder: RunFolder, watchers: Watchers) -> None:
        self._keeper, self._service, self._folder, self._watchers = keeper, service, folder, watchers
        self._tasks: list[asyncio.Task[None]] = []
        self._addresses: dict[int, str] = {}

    def listening(self, address: str, run: str) -> None:
        """Start the gateways of a root that can be reached."""
        for index in range(self._keeper.gateways):
            plan = self._keeper.plan(index, address, self._folder)
            task = asyncio.get_running_loop().create_task(self._keep(plan))
            task.add_done_callback(self._left)
            self._tasks.append(task)

    async def end(self) -> None:
        """Wait for the gateways, which know from their root that it is over; stop those that do not end."""
        if self._tasks:
            ending = asyncio.ensure_future(asyncio.wait(self._tasks))
            if self._service.state.phase is Phase.DONE:
                await asyncio.wait({ending}, timeout=SAY_S)
                if not ending.done():
                    self._watchers.note(
                        f"the rounds are done; gateways stay up to {STAY_S:.0f} s to tell phones that may not know:"
                        " Ctrl-C ends it now"
                    )
                hurried = asyncio.ensure_future(self._service.hurried())
                await asyncio.wait({ending, hurried}, timeout=STAY_S, return_when=asyncio.FIRST_COMPLETED)
                hurried.cancel()
            else:
                await asyncio.wait({ending}, timeout=GOODBYE_S)
            ending.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _left(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            self._service.end(error)

    async def _keep(self, plan: GatewayPlan) -> None:
        gateway_host, deaths = self._keeper.gateway_host(), 0

        def report(message: Report) -> None:
            nonlocal deaths, plan
            if isinstance(message, Listening):
                deaths = 0
                # Its next life is where its phones look for it.
                port = urlsplit(message.address).port or 0
                plan = replace(plan, entrance=replace(plan.entrance, port=port))
                self._listens(plan, message, gateway_host.place)
            elif isinstance(message, Gathered):
                self._watchers.note(f"gateway {plan.index} has its {message.phones} phones")

        while True:
            try:
                await gateway_host.play(plan, report)
                return
            except GatewayDiedError as death:
                deaths += 1
                if deaths >= DEATHS:
                    raise LocalError(
                        f"gateway {plan.index} died {deaths} times before it listened ({death}); see"
                        f" {log_file(plan.folder)}"
                    ) from death
                self._watchers.note(f"gateway {plan.index} died ({death}); it is started again")
            await asyncio.sleep(AGAIN_S)

    def _listens(self, plan: GatewayPlan, message: Listening, place: str) -> None:
        mine = gateway_rules(plan.config, *plan.place)
        where = f"process {message.process}{f' on {place}' if place else ''}"
        self._watchers.note(
            f"gateway {plan.index} serves shards {mine.first} to {mine.first + mine.phones - 1} at {message.address}"
            f" ({where})"
        )
        known = len(self._addresses)
        self._addresses[plan.index] = message.address
        if known < len(self._addresses) == self._keeper.gateways:
            flags = " ".join(f"--server {self._addresses[index]}" for index in sorted(self._addresses))
            self._watchers.note(f"phones come in with: fl-edge run {flags}")
