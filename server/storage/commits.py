"""Group commit: many phones' writes, one transaction, one fsync.

While one transaction is being written, what arrives waits and shares the next one, so durability costs one fsync for
each batch and not one for each update.
"""

import asyncio
from collections.abc import Callable

from featherfed.server.storage.store import Statement, Store


class Commits:
    """Writes batches of statements off the event loop, in order.

    After the first batch that cannot be written nothing is: the disk must never hold a later one without an earlier.
    """

    def __init__(
        self,
        store: Store,
        extra: Callable[[], list[Statement]],
        failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        """`extra` gives what every transaction takes along: the ledger's changes.

        `failed` is told why nothing is written any more; whoever waits for a write hears of it too.
        """
        self._failed = failed
        self._store = store
        self._extra = extra
        self._waiting: list[tuple[tuple[Statement, ...], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._broken: BaseException | None = None

    def queue(self, *statements: Statement) -> asyncio.Future[None]:
        """Take statements at once, in this order; the future is done when they are durable, or fails."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((statements, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._drain(), name="group commit")
        return done

    async def write(self, *statements: Statement) -> None:
        """Return when the statements are durable; raises `LocalError` if they cannot be written."""
        await self.queue(*statements)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            statements = [statement for group, _ in batch for statement in group]
            statements += self._extra()
            if self._broken is None:
                try:
                    await loop.run_in_executor(None, self._store.apply, statements)
                except Exception as error:
                    self._broken = error
                    self._failed(error)
            for _, done in batch:
                if done.cancelled():
                    continue
                if self._broken is None:
                    done.set_result(None)
                else:
                    done.set_exception(self._broken)
                    done.exception()  # seen: `failed` was told
