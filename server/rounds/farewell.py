"""The end of a run: every phone is told, also who was away in that very moment and is back a little later."""

import asyncio
from collections.abc import Awaitable, Callable

from websockets.exceptions import ConnectionClosed

from featherfed.server.phones.connections import Connections
from featherfed.server.phones.fleet import Fleet
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds.downlink import Downlink
from featherfed.server.watchers.watcher import Watcher
from featherfed.wire.closing import Close
from featherfed.wire.messages import Finish

GOODBYE_S = 5.0
"""How long a connection may take for its last words: a link that carries nothing any more never will."""
STAY_S = 60.0
"""The server stays no longer than this: a phone that looks for it comes every 30 s at the least."""
SAY_S = 1.0
"""After so long it is said what the end of a run waits for."""


class Farewell:
    """Says why a run ends."""

    def __init__(
        self, fleet: Fleet, connections: Connections, downlink: Downlink, watcher: Watcher, *, grace_s: float
    ) -> None:
        """`grace_s` is for how long a round waits for a phone that is away."""
        self._stay_s = min(grace_s, STAY_S)
        self._fleet, self._connections, self._downlink = fleet, connections, downlink
        self._watcher = watcher
        self._hurried = asyncio.Event()
        self._finish: Finish | None = None

    @property
    def said(self) -> bool:
        """Whether the rounds are done, and all that a phone is told that comes now is this."""
        return self._finish is not None

    def hurry(self) -> None:
        """Stay for no phone any longer."""
        self._hurried.set()

    async def hurried(self) -> None:
        """Return when nobody is to be waited for any longer."""
        await self._hurried.wait()

    async def pause(self, why: str) -> None:
        """Tell all phones why the run pauses; who is away looks for it when it is resumed."""
        await self._tell_who_is_here(lambda phone: phone.close(Close.PAUSED, why))

    async def end(self, rounds: int, *, stays: bool) -> None:
        """Tell all phones that the rounds are done; `stays` for those, too, whose connection broke a moment ago.

        Who is not back within the grace time, or a minute, looks for the server in vain.
        """
        self._finish = Finish(f"all {rounds} rounds are done")
        await self._tell_who_is_here(self.tell)
        if not stays:
            return
        staying = asyncio.ensure_future(self._stay())
        try:
            told, _ = await asyncio.wait({staying}, timeout=SAY_S)
            if not told and (missing := len(self._fleet.missing(self._stay_s))):
                phones = f"{missing} phone{'s' * (missing > 1)} that may not know"
                left = f"up to {self._fleet.missing_s(self._stay_s):.0f} s"
                self._watcher.note(f"the rounds are done; the server stays {left} to tell {phones}: Ctrl-C ends it now")
            await staying
        finally:
            staying.cancel()

    async def tell(self, phone: PhoneConnection) -> None:
        """Tell one phone that the rounds are done."""
        assert self._finish is not None, "the rounds are done"
        self._downlink.stop(phone)
        if self._fleet.connections.get(phone.shard) is phone:
            await phone.send(self._finish)
            await phone.close(Close.DONE)
        else:
            await phone.close(Close.DONE, "the run is over")

    async def _tell_who_is_here(self, tell: Callable[[PhoneConnection], Awaitable[None]]) -> None:
        async def goodbye(phone: PhoneConnection) -> None:
            try:
                async with asyncio.timeout(GOODBYE_S):
                    await tell(phone)
            except ConnectionClosed:
                pass
            except TimeoutError:
                # If it is there, on a slow link or a new one, it comes back and hears it at once.
                phone.abort()

        await asyncio.gather(*(goodbye(phone) for phone in self._connections))

    async def _stay(self) -> None:
        """Return when all phones know, or those who do not have been away for too long."""
        fleet, now_s = self._fleet, asyncio.get_running_loop().time
        hurried = asyncio.ensure_future(self._hurried.wait())
        last_s = now_s() + self._stay_s
        try:
            while True:
                fleet.moved.clear()
                # Who is here is being told.
                wait_s = max(fleet.missing_s(self._stay_s), GOODBYE_S if fleet.connections else 0.0)
                moved = asyncio.ensure_future(fleet.moved.wait())
                await asyncio.wait(
                    {hurried, moved},
                    timeout=max(0.0, min(wait_s, last_s - now_s())),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if hurried.done() or not moved.done():
                    return
        finally:
            moved.cancel()
            hurried.cancel()
