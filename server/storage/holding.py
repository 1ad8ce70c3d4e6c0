"""A run is served by one process at a time: two would write one ledger.

The folder is locked where the run is served. What is kept in PostgreSQL can be reached from elsewhere, so there the
schema is locked too, by an advisory lock that lasts as long as its connection. A lock ends with its process.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from featherfed.errors import ConfigError, LocalError
from featherfed.holding import held, myself
from featherfed.server.storage.database import Remote
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.store import cause

NAME_BYTES = 63
"""Of what a connection calls itself, by PostgreSQL."""
HOLDER = sa.text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory'"
    " AND l.granted AND l.objsubid = 1 AND a.datname = current_database()"
    " AND (l.classid::bigint << 32 | l.objid::bigint) = :key"
)


@contextlib.contextmanager
def hold(folder: RunFolder, *, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a run inside this context; raises `ConfigError` that names the process which serves it."""
    way_out = "stop that one first, or watch the run with fl-server dashboard"
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(folder.path, "served", way_out, say=say))
        database = folder.database
        if isinstance(database, Remote):
            stack.enter_context(_schema_held(database, way_out))
        yield


@contextlib.contextmanager
def _schema_held(remote: Remote, way_out: str) -> Iterator[None]:
    key = int.from_bytes(hashlib.blake2b(remote.schema.encode(), digest_size=8).digest(), "big", signed=True)
    name = myself()[:NAME_BYTES]
    engine = sa.create_engine(
        remote.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", connect_args={"application_name": name}
    )
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        try:
            connection = stack.enter_context(contextlib.closing(engine.connect()))
            free = connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key)))
            holder = None if free else connection.scalar(HOLDER, {"key": key})
        except sa.exc.SQLAlchemyError as error:
            raise LocalError(f"cannot lock {remote}: {cause(error)}") from error
        if not free:
            raise ConfigError(f"{remote} is served by {holder or 'another process'}; {way_out}")
        yield
