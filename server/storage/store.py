"""What a run keeps in its database: rounds, phones, updates under way, traffic and faults.

SQLite in WAL mode with `synchronous=FULL`, or PostgreSQL with `synchronous_commit=on`: a transaction that has returned
is on the disk. Callers hand over lists of statements, so that many phones' writes share one transaction and one fsync
(`server/storage/commits.py`).
"""

import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from featherfed.errors import ConfigError, LocalError
from featherfed.server.measures import Measures, figures, finite, from_text, to_text
from featherfed.server.storage.database import Remote, copied, is_read_only, sqlite_url
from featherfed.server.storage.ledger import FIELDS, Traffic

metadata = sa.MetaData()
Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A count of bytes has more than the 32 bits of PostgreSQL's INTEGER; SQLite's has 64."""

run_table = sa.Table("run", metadata, sa.Column("key", sa.String, primary_key=True), sa.Column("value", sa.String))
phones_table = sa.Table(
    "phones",
    metadata,
    sa.Column("shard", Whole, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String, nullable=False, unique=True),
)
rounds_table = sa.Table(
    "rounds",
    metadata,
    sa.Column("round", Whole, primary_key=True, autoincrement=False),
    sa.Column("attempt", Whole, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # open | closed
    sa.Column("cohort", sa.String, nullable=False),  # JSON list of shards asked so far
    sa.Column("refused", sa.String, nullable=False),  # JSON list of those that are not asked again
    sa.Column("started_s", sa.Float, nullable=False),  # seconds of the run's clock
    sa.Column("seconds", sa.Float),
    sa.Column("late", Whole),
    sa.Column("failed", Whole),
    sa.Column("loss", sa.Float),
    sa.Column("metrics", sa.String),  # JSON: {name: value, null for what is no number}, where it was evaluated
)
updates_table = sa.Table(
    "updates",
    metadata,
    sa.Column("round", Whole, primary_key=True, autoincrement=False),
    sa.Column("shard", Whole, primary_key=True, autoincrement=False),
    sa.Column("state", sa.String, nullable=False),  # receiving | arrived, in a circle that is not summed | accepted
    sa.Column("size", Whole, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("examples", Whole, nullable=False),
    sa.Column("counts_in", Whole),  # the round whose model it is part of, once accepted
    sqlite_with_rowid=False,
)
chunks_table = sa.Table(
    "chunks",
    metadata,
    sa.Column("round", Whole, primary_key=True, autoincrement=False),
    sa.Column("shard", Whole, primary_key=True, autoincrement=False),
    sa.Column("offset", Whole, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
traffic_table = sa.Table(
    "traffic",
    metadata,
    sa.Column("round", Whole, primary_key=True, autoincrement=False),
    sa.Column("shard", Whole, primary_key=True, autoincrement=False),
    sa.Column("direction", sa.String, primary_key=True),
    *(sa.Column(field, Whole, nullable=False) for field in FIELDS),
    sqlite_with_rowid=False,
)
faults_table = sa.Table(
    "faults",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("round", Whole, nullable=False),
    sa.Column("phone", sa.String, nullable=False),
    sa.Column("code", Whole, nullable=False),
    sa.Column("sentence", sa.String, nullable=False),
)


def figures_of(row: Any) -> dict[str, float | None]:
    """Return the values of a round's evaluation by the names of its measures."""
    return figures(row.loss, json.loads(row.metrics or "{}"))


Row = tuple[Any, ...] | dict[str, Any]
"""The values of a row in the order of its statement's columns, or by their names."""


TOGETHER = 64
"""Rows in one statement of SQLite: for each statement that it takes, Python's lock is given up and taken again."""
FEW = 8
"""Fewer rows go one by one: what SQLAlchemy adds to a statement is more than that costs."""


class Upsert:
    """Put rows, in place of those with the same key; in the words of either database, each made once.

    Rows go to the driver as they are: SQLAlchemy's work on each is several times SQLite's own, and there are four for
    every update.
    """

    def __init__(self, table: sa.Table, key: tuple[str, ...], columns: Sequence[str], given: Sequence[str]) -> None:
        """`given` are the columns that are replaced where the row is there already."""
        self._table, self._key, self._columns, self._given = table, key, tuple(columns), given
        self._texts: dict[tuple[str, int], tuple[str, bool]] = {}

    def run(self, connection: sa.Connection, rows: Sequence[Row] | Row) -> None:
        """Put the rows, or the one row."""
        names, many = self._columns, rows if isinstance(rows, list) else [rows]
        text, by_name = self._text(connection.dialect, 1)
        given: Any
        if by_name:
            given = [row if isinstance(row, dict) else dict(zip(names, row, strict=True)) for row in many]
            connection.exec_driver_sql(text, given)
            return
        given = [tuple(row[name] for name in names) if isinstance(row, dict) else row for row in many]
        first = 0
        while (left := len(given) - first) >= FEW:
            # A power of two: a handful of statements, of which the driver keeps each prepared.
            most = min(1 << left.bit_length() - 1, TOGETHER)
            longer, _ = self._text(connection.dialect, most)
            connection.exec_driver_sql(longer, tuple(itertools.chain.from_iterable(given[first : first + most])))
            first += most
        if left:
            connection.exec_driver_sql(text, given[first:])

    def _text(self, dialect: sa.Dialect, rows: int) -> tuple[str, bool]:
        """Return the statement for so many rows, and whether its places have names: a dict is then what is taken."""
        if (dialect.name, rows) not in self._texts:
            insert: Any = {"sqlite": sqlite, "postgresql": postgresql}[dialect.name].insert(self._table)
            changes = {name: insert.excluded[name] for name in self._given}
            upsert = insert.on_conflict_do_update(index_elements=self._key, set_=changes)
            compiled = upsert.compile(dialect=dialect, column_keys=list(self._columns))
            places = tuple(compiled.positiontup or ())
            assert places in ((), self._columns), "a statement's places are in the order of its columns"
            row = f"({', '.join('?' * len(self._columns))})"
            text = str(compiled)
            if rows > 1:
                assert text.count(f"VALUES {row}") == 1, "a statement for one row"
                text = text.replace(f"VALUES {row}", "VALUES " + ", ".join([row] * rows))
            self._texts[dialect.name, rows] = text, not places
        return self._texts[dialect.name, rows]


Statement = tuple[sa.Executable | Upsert, Any]
"""What is run, and with what: of an `Upsert` a row or a list of rows, of any other a dict or several."""


class StoredUpdate(NamedTuple):
    """An update as the disk has it: its row."""

    round_number: int
    shard: int
    state: str
    size: int
    digest: bytes
    examples: int
    counts_in: int | None = None

    def accepted(self, digest: bytes, counts_in: int) -> "StoredUpdate":
        """Return it as part of the sum of a round."""
        return StoredUpdate(self.round_number, self.shard, "accepted", self.size, digest, self.examples, counts_in)


def put_value(key: str, value: str) -> Statement:
    """Keep one setting of the run."""
    return upsert(run_table, ("key",)), (key, value)


def put_measures(measures: Measures) -> Statement:
    """Keep what the run's evaluations say."""
    return put_value("measures", to_text(measures))


def put_phone(shard: int, name: str) -> Statement:
    """Give a shard to a phone."""
    return upsert(phones_table, ("shard",)), (shard, name)


def put_round(
    round_number: int, attempt: int, cohort: Iterable[int], refused: Iterable[int], started_s: float
) -> Statement:
    """Note that a round is open, who was asked and whose update was refused."""
    asked, failed = json.dumps(sorted(cohort)), json.dumps(sorted(refused))
    return upsert(rounds_table, ("round",)), (round_number, attempt, "open", asked, failed, started_s)


def close_round(round_number: int, *, seconds: float, late: int, failed: int) -> Statement:
    """Note how a round ended."""
    return _of_round(round_number, state="closed", seconds=seconds, late=late, failed=failed)


def put_evaluation(round_number: int, loss: float | None, metrics: Mapping[str, float | None]) -> Statement:
    """Note what the version of a round was evaluated to; what is no number is kept as none."""
    kept = json.dumps({name: finite(value) for name, value in metrics.items()})
    return _of_round(round_number, loss=finite(loss), metrics=kept)


def _of_round(round_number: int, **values: Any) -> Statement:
    statement = rounds_table.update().where(rounds_table.c.round == sa.bindparam("number"))
    places: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in values}
    return statement.values(places), {"number": round_number, **{f"new_{name}": values[name] for name in values}}


def put_update(update: StoredUpdate) -> Statement:
    """Note what is known of an update."""
    return put_updates([update])


def put_updates(updates: Sequence[StoredUpdate]) -> Statement:
    """Note what is known of updates."""
    return upsert(updates_table, ("round", "shard")), list(updates)


def put_chunk(round_number: int, shard: int, offset: int, data: bytes) -> Statement:
    """Keep some bytes of an update."""
    return put_chunks([(round_number, shard, offset, data)])


def put_chunks(rows: Sequence[tuple[int, int, int, bytes]]) -> Statement:
    """Keep bytes of updates: (round, shard, offset, data)."""
    return upsert(chunks_table, ("round", "shard", "offset")), list(rows)


def drop_update(round_number: int, shard: int) -> list[Statement]:
    """Forget an update that cannot count, so that the phone may send another."""
    where = {"r": round_number, "s": shard}
    return [
        (table.delete().where(table.c.round == sa.bindparam("r"), table.c.shard == sa.bindparam("s")), where)
        for table in (updates_table, chunks_table)
    ]


def drop_chunks(round_number: int) -> Statement:
    """Forget the bytes of updates that count in a round that is closed: they are in the model now."""
    in_model = sa.exists().where(
        updates_table.c.round == chunks_table.c.round,
        updates_table.c.shard == chunks_table.c.shard,
        updates_table.c.counts_in <= sa.bindparam("r"),
    )
    return chunks_table.delete().where(in_model), {"r": round_number}


def put_traffic(rows: dict[tuple[int, int, str], Traffic]) -> list[Statement]:
    """Keep the traffic of some (round, shard, direction)."""
    values = [(*key, *traffic.counts()) for key, traffic in rows.items()]
    return [(upsert(traffic_table, ("round", "shard", "direction")), values)] if values else []


def put_fault(at_s: float, round_number: int, phone: str, code: int, sentence: str) -> Statement:
    """Note a fault of a phone."""
    return faults_table.insert(), {
        # What a phone sent may be in it, and PostgreSQL's text has no NUL.
        "at_s": at_s, "round": round_number, "phone": phone, "code": code, "sentence": sentence.replace("\0", "\\0"),
    }  # fmt: skip


def together(statements: Sequence[Statement]) -> Statement:
    """Return one statement that puts the rows of several of one kind, each for one row."""
    return statements[0][0], [row for _, row in statements]


_upserts: dict[str, Upsert] = {}


def upsert(table: sa.Table, key: tuple[str, ...]) -> Upsert:
    """Return the statement, built once for each table: building costs more than running it."""
    if table.name not in _upserts:
        columns = [column.name for column in table.columns]
        given = [name for name in columns if name not in key]
        if table is rounds_table:
            # How a round ended is written by `close_round`.
            columns = ["round", "attempt", "state", "cohort", "refused", "started_s"]
            given = ["attempt", "state", "cohort", "refused"]
        _upserts[table.name] = Upsert(table, key, columns, given)
    return _upserts[table.name]


Injector = Callable[[str], None]
"""Called with `before`, `inside` and `after` around each transaction; a test fails or dies there."""


class Store:
    """The database of one run. Its methods block: the service calls them off the event loop."""

    def __init__(
        self,
        place: Path | Remote,
        *,
        durable: bool = True,
        busy_s: float = 10.0,
        injector: Injector = lambda moment: None,
    ) -> None:
        """`busy_s`: how long to wait while another process has the file locked."""
        self._place = place
        self._injector = injector
        self.erases = False
        """Whether what is deleted is overwritten too (SQLite): a masked run keeps no trace of its phones' updates."""
        read_only = False
        # Connections are never shared between threads: a reader that ends its transaction would end a writer's too.
        if isinstance(place, Remote):
            options = f"{place.options} -csynchronous_commit={'on' if durable else 'off'}"
            self._engine = sa.create_engine(place.url, connect_args={"options": options})
        elif read_only := is_read_only(place):
            self._engine = sa.create_engine("sqlite://", creator=lambda: copied(place), poolclass=sa.pool.StaticPool)
        else:
            self._engine = sa.create_engine(sqlite_url(place), connect_args={"timeout": busy_s})

            @sa.event.listens_for(self._engine, "connect")
            def _configure(connection: Any, _record: Any) -> None:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")

        try:
            if isinstance(place, Remote):
                with self._engine.begin() as connection:
                    connection.execute(sa.schema.CreateSchema(place.schema, if_not_exists=True))
            metadata.create_all(self._engine)
            lacking = self._lacking()
            if read_only:
                with self._engine.begin() as connection:
                    connection.exec_driver_sql("PRAGMA query_only=ON")
        except sa.exc.SQLAlchemyError as error:
            self._engine.dispose()
            raise LocalError(f"cannot open {place}: {cause(error)}") from error
        if lacking:
            self._engine.dispose()
            raise ConfigError(
                f"{place} is a run of an earlier featherfed, whose database has no {lacking}: read it with that"
                " release; its rounds.csv is for any"
            )
        if isinstance(place, Path):
            self._hold_to(place)

    def _lacking(self) -> str:
        """Return the first column that this release needs and the database has not, or nothing."""
        inspector = sa.inspect(self._engine)
        for table in metadata.sorted_tables:
            there = {column["name"] for column in inspector.get_columns(table.name)}
            for column in table.columns:
                if column.name not in there:
                    return f"{table.name}.{column.name}"
        return ""

    def _hold_to(self, path: Path) -> None:
        """Fail from now on where the file is removed or replaced.

        SQLite would write on into a file that nobody finds again, and make an empty one for whoever reads.
        """
        file = os.stat(path)

        def check(*_: Any) -> None:
            try:
                there = os.stat(path)
            except FileNotFoundError as error:
                raise sqlite3.OperationalError("it was removed while it was in use") from error
            if not os.path.samestat(file, there):
                raise sqlite3.OperationalError("another file was put in its place while it was in use")

        sa.event.listen(self._engine, "do_connect", check)
        sa.event.listen(self._engine, "checkout", check)

    def apply(self, statements: Iterable[Statement]) -> None:
        """Run all statements in one transaction: durable when this returns."""
        self._injector("before")
        try:
            with self._engine.begin() as connection:
                if self.erases and isinstance(self._place, Path):
                    connection.exec_driver_sql("PRAGMA secure_delete=ON")
                for statement, values in statements:
                    if isinstance(statement, Upsert):
                        statement.run(connection, values)
                    else:
                        connection.execute(statement, values)
                self._injector("inside")
        except sa.exc.SQLAlchemyError as error:
            raise LocalError(f"cannot write {self._place}: {cause(error)}") from error
        self._injector("after")

    def empty_log(self) -> None:
        """Bring what SQLite's log has into the database's file, and empty the log, unless somebody reads just then."""
        if isinstance(self._place, Path):
            try:
                with self._engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            except sa.exc.SQLAlchemyError as error:
                raise LocalError(f"cannot write {self._place}: {cause(error)}") from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def read(self, query: sa.Executable) -> list[Any]:
        """Return the rows of a query; raises `LocalError` where they cannot be read."""
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(query))
        except sa.exc.SQLAlchemyError as error:
            raise LocalError(f"cannot read {self._place}: {cause(error)}") from error

    def values(self) -> dict[str, str]:
        """Return the settings of the run."""
        return {row.key: row.value for row in self.read(run_table.select())}

    def measures(self) -> Measures:
        """Return what the run's evaluations say; nothing before it has begun."""
        return from_text(self.values().get("measures", "[]"))

    def phones(self) -> dict[int, str]:
        """Return the name that holds each shard."""
        return {row.shard: row.name for row in self.read(phones_table.select())}

    def rounds(self) -> list[Any]:
        """Return the rows of the rounds, in order."""
        return self.read(rounds_table.select().order_by(rounds_table.c.round))

    def updates(self, round_number: int | None = None) -> list[StoredUpdate]:
        """Return the updates of a round, or of all."""
        query = updates_table.select().order_by(updates_table.c.round, updates_table.c.shard)
        if round_number is not None:
            query = query.where(updates_table.c.round == round_number)
        return [StoredUpdate(*row) for row in self.read(query)]

    def update(self, round_number: int, shard: int) -> StoredUpdate | None:
        """Return what is known of one update."""
        of_phone = updates_table.c.round == round_number, updates_table.c.shard == shard
        rows = self.read(updates_table.select().where(*of_phone))
        return StoredUpdate(*rows[0]) if rows else None

    def payload(self, round_number: int, shard: int) -> bytes:
        """Return the durable prefix of an update."""
        query = (
            chunks_table.select()
            .where(chunks_table.c.round == round_number, chunks_table.c.shard == shard)
            .order_by(chunks_table.c.offset)
        )
        return b"".join(row.data for row in self.read(query))

    def traffic(self) -> dict[tuple[int, int, str], Traffic]:
        """Return the traffic of every (round, shard, direction)."""
        rows = self.read(traffic_table.select().order_by(*traffic_table.primary_key.columns))
        return {(row.round, row.shard, row.direction): Traffic(*row[3:]) for row in rows}

    def faults(self) -> list[Any]:
        """Return the rows of the faults, in order."""
        return self.read(faults_table.select().order_by(faults_table.c.id))


def cause(error: sa.exc.SQLAlchemyError) -> str:
    """Return what the database said, as one line."""
    return " ".join(str(error.__cause__ or error).split())
