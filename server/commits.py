"""Group commit: many phones' writes, one transaction, one fsync.

While one transaction is being written, what arrives waits and shares the next one, so durability costs one fsync for
each batch and not one for each update.
"""

import asyncio
from collections.abc import Callable

from featherfed.errors import LocalError
from server.store import Statement, Store


class Commits:
    """Writes batches of statements off the event loop, in order."""

    def __init__(self, store: Store, extra: Callable[[], list[Statement]]) -> None:
        """`extra` gives what every transaction takes along: the ledger's changes."""
        self._store = store
        self._extra = extra
        self._waiting: list[tuple[list[Statement], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, *statements: Statement) -> None:
        """Return when the statements are durable; raises `LocalError` if they cannot be written."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((list(statements), done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._drain(), name="group commit")
        await done

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            statements = [statement for group, _ in batch for statement in group]
            statements += self._extra()
            result: LocalError | None = None
            try:
                await loop.run_in_executor(None, self._store.apply, statements)
            except LocalError as error:
                result = error
            for _, done in batch:
                if done.cancelled():
                    continue
                if result is None:
                    done.set_result(None)
                else:
                    done.set_exception(result)
