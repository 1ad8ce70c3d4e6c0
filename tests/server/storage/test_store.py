import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featherfed.errors import ConfigError, LocalError
from featherfed.server.storage.database import remote_for
from featherfed.server.storage.ledger import Traffic
from featherfed.server.storage.store import (
    Statement,
    Store,
    StoredUpdate,
    close_round,
    drop_chunks,
    drop_update,
    put_chunk,
    put_evaluation,
    put_fault,
    put_phone,
    put_round,
    put_traffic,
    put_update,
    put_value,
)

DIGEST = b"12345678"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        store = Store(tmp_path / "run.sqlite")
    else:
        store = Store(remote_for(request.getfixturevalue("postgresql"), "run"))
    yield store
    store.close()


def open_round(number: int, cohort: list[int], attempt: int = 0, started_s: float = 0.0) -> Statement:
    return put_round(number, attempt, cohort, (), started_s)


def test_database_of_an_earlier_release_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("alter table traffic drop column masks")
    with pytest.raises(ConfigError, match=r"is a run of an earlier featherfed, whose database has no traffic\.masks"):
        Store(path)


def test_setting_that_is_put_again_is_replaced(store: Store) -> None:
    store.apply([put_value("version", "1"), put_value("run", "ab12")])
    store.apply([put_value("version", "2")])
    assert store.values() == {"version": "2", "run": "ab12"}


def test_shard_changes_hands(store: Store) -> None:
    store.apply([put_phone(0, "a"), put_phone(1, "b")])
    store.apply([put_phone(0, "c")])
    assert store.phones() == {0: "c", 1: "b"}


def test_round_keeps_its_start_over_its_attempts_and_then_closes(store: Store) -> None:
    store.apply([open_round(1, [3, 1], started_s=5.0)])
    store.apply([open_round(1, [3, 1, 2], attempt=1, started_s=9.0)])
    (row,) = store.rounds()
    assert (row.state, row.attempt, row.cohort, row.started_s, row.seconds) == ("open", 1, "[1, 2, 3]", 5.0, None)
    store.apply([close_round(1, seconds=2.5, late=1, failed=0)])
    (row,) = store.rounds()
    assert (row.state, row.seconds, row.late, row.failed, row.loss, row.metrics) == ("closed", 2.5, 1, 0, None, None)
    store.apply([put_evaluation(1, 0.5, {"accuracy": float("nan")})])
    (row,) = store.rounds()
    assert (row.state, row.seconds, row.loss, row.metrics) == ("closed", 2.5, 0.5, '{"accuracy": null}')


def test_rounds_come_in_order(store: Store) -> None:
    store.apply([open_round(number, [0]) for number in (3, 1, 2)])
    assert [row.round for row in store.rounds()] == [1, 2, 3]


def test_payload_is_its_chunks_in_the_order_of_their_offsets(store: Store) -> None:
    store.apply([put_chunk(1, 0, 3, b"def"), put_chunk(1, 1, 0, b"other"), put_chunk(1, 0, 0, b"abc")])
    assert store.payload(1, 0) == b"abcdef"
    assert store.payload(2, 0) == b""


def test_update_goes_from_receiving_to_accepted(store: Store) -> None:
    assert store.update(1, 0) is None
    update = StoredUpdate(1, 0, "receiving", 6, DIGEST, 10)
    store.apply([put_update(update)])
    assert store.update(1, 0) == update
    accepted = StoredUpdate(1, 0, "accepted", 6, DIGEST, 10)
    store.apply([put_update(accepted), put_update(StoredUpdate(2, 1, "receiving", 9, DIGEST, 1))])
    assert store.updates(1) == [accepted]
    assert [update.round_number for update in store.updates()] == [1, 2]


def test_bytes_go_when_the_round_that_counts_them_closes_and_no_others(store: Store) -> None:
    late = StoredUpdate(1, 1, "accepted", 3, DIGEST, 10, counts_in=2)
    for update in (StoredUpdate(1, 0, "accepted", 3, DIGEST, 10, counts_in=1), late):
        store.apply([put_update(update), put_chunk(1, update.shard, 0, b"abc")])
    store.apply([drop_chunks(1)])
    assert (store.payload(1, 0), store.payload(1, 1)) == (b"", b"abc")
    assert len(store.updates()) == 2, "who was accepted is remembered, for copies that come late"


def test_dropped_update_takes_its_bytes_along_and_no_others(store: Store) -> None:
    for shard in (0, 1):
        store.apply([put_update(StoredUpdate(1, shard, "receiving", 6, DIGEST, 10)), put_chunk(1, shard, 0, b"abc")])
    store.apply(drop_update(1, 0))
    assert (store.update(1, 0), store.payload(1, 0)) == (None, b"")
    assert store.payload(1, 1) == b"abc"


def test_traffic_round_trips(store: Store) -> None:
    rows = {(1, 0, "uplink"): Traffic(1, 2, 3, 4, 5, 6, 7), (1, -1, "downlink"): Traffic(handshake=99)}
    store.apply(put_traffic(rows))
    store.apply(put_traffic({(1, 0, "uplink"): Traffic(10, 20, 30, 40, 50, 60, 70)}))
    assert store.traffic() == {**rows, (1, 0, "uplink"): Traffic(10, 20, 30, 40, 50, 60, 70)}
    assert put_traffic({}) == []


@pytest.mark.parametrize("rows", [1, 7, 8, 63, 64, 65, 200])
def test_any_number_of_rows_is_put_and_put_again(store: Store, rows: int) -> None:
    for more in (0, 5):
        traffic = {(1, shard, "uplink"): Traffic(theory=shard, socket=more + shard) for shard in range(more, rows)}
        store.apply(put_traffic(traffic))
        kept = store.traffic()
        assert len(kept) == rows
        assert {key: kept[key] for key in traffic} == traffic


def test_faults_are_kept_in_order(store: Store) -> None:
    store.apply([put_fault(1.5, 2, "a", 4003, "wrong"), put_fault(2.5, 2, "b", 4001, "out of turn")])
    assert [(row.phone, row.code, row.sentence) for row in store.faults()] == [
        ("a", 4003, "wrong"), ("b", 4001, "out of turn"),
    ]  # fmt: skip


def test_statement_that_fails_leaves_nothing_of_its_transaction(store: Store) -> None:
    with pytest.raises(LocalError, match=r"cannot write .*(run\.sqlite|schema run_).*(UNIQUE|unique)"):
        store.apply([put_value("a", "1"), put_phone(0, "same"), put_phone(1, "same")])
    assert store.values() == {}
    assert store.phones() == {}


def test_what_was_applied_is_there_for_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    first = Store(path)
    first.apply([put_value("run", "ab12")])
    # Not closed: as after a kill.
    second = Store(path)
    assert second.values() == {"run": "ab12"}
    second.close()
    first.close()


def pragma(store: Store, name: str) -> Any:
    with store._engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 0)])
def test_durable_store_waits_for_the_disk(durable: bool, synchronous: int, tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite", durable=durable)
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == synchronous
    store.close()


def test_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    path.write_bytes(b"this is not a database at all, it is a text" * 50)
    with pytest.raises(LocalError, match=r"cannot open .*run\.sqlite"):
        Store(path)


def test_counts_of_terabytes_and_text_with_nul_are_kept(store: Store) -> None:
    traffic = Traffic(socket=1 << 42)
    store.apply([*put_traffic({(1, 0, "uplink"): traffic}), put_fault(0.0, 1, "phone", 4001, "bad \0 frame")])
    assert store.traffic() == {(1, 0, "uplink"): traffic}
    assert store.faults()[0].sentence == "bad \\0 frame"


@pytest.mark.parametrize("instead", [None, b"", b"something else"])
def test_file_that_was_removed_or_replaced_takes_nothing_and_is_not_made_anew(
    tmp_path: Path, instead: bytes | None
) -> None:
    """What is written into a file without a name is lost with the process, however often it is synced."""
    path = tmp_path / "run.sqlite"
    store = Store(path)
    store.apply([put_value("run", "a")])
    path.unlink()
    if instead is not None:
        path.write_bytes(instead)
    words = "it was removed while" if instead is None else "another file was put in its place while"
    with pytest.raises(LocalError, match=rf"cannot write .*run\.sqlite: {words} it was in use"):
        store.apply([put_value("run", "b")])
    with pytest.raises(LocalError, match=rf"cannot read .*run\.sqlite: {words} it was in use"):
        store.values()
    store.close()
    assert (path.read_bytes() if path.exists() else None) == instead
