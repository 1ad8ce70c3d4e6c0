from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from featherfed.edge_client.phone_state import PendingUpdate, PhoneState
from featherfed.errors import ConfigError, LocalError
from featherfed.wire.messages import NOTHING

WEIGHTS = np.arange(5, dtype=np.float32)
RESIDUAL = np.full(5, 0.25, np.float32)
DIGEST = b"12345678"


def full(folder: Path | None) -> PhoneState:
    """Return a phone's state with everything in it."""
    phone_state = PhoneState(folder)
    phone_state.name_phone("phone-7")
    phone_state.enter("ab12", 5)
    phone_state.hold(3, WEIGHTS)
    phone_state.put_update(PendingUpdate(3, b"earlier", 10, RESIDUAL))
    phone_state.accepted(3)
    phone_state.put_update(PendingUpdate(4, b"payload", 10, 2 * RESIDUAL))
    phone_state.begin_download(DIGEST)
    phone_state.extend_download(0, b"abc")
    return phone_state


def same(first: PhoneState, second: PhoneState) -> bool:
    plain = ("name", "run", "held_version", "download_digest")
    arrays = all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("weights", "residual"))
    assert first.pending is not None and second.pending is not None
    return (
        arrays
        and all(getattr(first, name) == getattr(second, name) for name in plain)
        and bytes(first.download) == bytes(second.download)
        and first.pending.payload == second.pending.payload
        and np.array_equal(first.pending.residual, second.pending.residual)
    )


def test_everything_survives_the_process(tmp_path: Path) -> None:
    assert same(full(tmp_path), PhoneState(tmp_path))


def test_without_a_folder_all_is_in_memory(tmp_path: Path) -> None:
    assert full(None).held_version == 3
    assert PhoneState(None).held_version == NOTHING
    assert list(tmp_path.iterdir()) == []


def test_phone_keeps_its_random_name(tmp_path: Path) -> None:
    name = PhoneState(tmp_path).name_phone(None)
    assert name.startswith("phone-")
    assert PhoneState(tmp_path).name_phone(None) == name
    assert PhoneState(tmp_path / "other").name_phone(None) != name


def test_another_run_forgets_all_but_the_name(tmp_path: Path) -> None:
    full(tmp_path).enter("cd34", 5)
    for phone_state in (PhoneState(tmp_path),):
        assert (phone_state.name, phone_state.run) == ("phone-7", "cd34")
        assert (phone_state.held_version, phone_state.weights, phone_state.pending, phone_state.residual) == (
            NOTHING,
            None,
            None,
            None,
        )
        assert (phone_state.download_digest, bytes(phone_state.download)) == (b"", b"")


def test_residual_is_committed_by_the_acceptance_of_its_own_round_only(tmp_path: Path) -> None:
    phone_state = full(tmp_path)
    phone_state.accepted(3)
    assert phone_state.pending is not None
    assert np.array_equal(phone_state.residual, RESIDUAL)
    phone_state.accepted(4)
    assert phone_state.pending is None
    assert np.array_equal(PhoneState(tmp_path).residual, 2 * RESIDUAL)


@pytest.mark.parametrize("kept", [True, False])
def test_accepted_update_can_be_taken_back_until_the_next_one_is_finished(tmp_path: Path, kept: bool) -> None:
    phone_state = full(tmp_path if kept else None)
    phone_state.accepted(4)
    assert phone_state.take_back(3) is None
    if kept:
        phone_state = PhoneState(tmp_path)
    update = phone_state.take_back(4)
    assert update is not None and update is phone_state.pending
    assert (update.round_number, update.payload, update.examples) == (4, b"payload", 10)
    assert np.array_equal(update.residual, 2 * RESIDUAL)
    assert phone_state.take_back(4) is None
    # Accepted a second time: the residual is that of the first.
    phone_state.accepted(4)
    assert np.array_equal(phone_state.residual, 2 * RESIDUAL)
    phone_state.put_update(PendingUpdate(5, b"next", 10, None))
    assert phone_state.take_back(4) is None
    if kept:
        assert not (tmp_path / "accepted").exists()


def test_another_shard_forgets_what_was_trained_on_the_one_before(tmp_path: Path) -> None:
    full(tmp_path).enter("ab12", 6)
    phone_state = PhoneState(tmp_path)
    assert (phone_state.run, phone_state.shard, phone_state.held_version) == ("ab12", 6, 3)
    assert (phone_state.pending, phone_state.residual, phone_state.take_back(3)) == (None, None, None)
    assert bytes(phone_state.download) == b"abc"


def test_dropped_update_leaves_the_residual_as_it_was(tmp_path: Path) -> None:
    full(tmp_path).drop_update()
    phone_state = PhoneState(tmp_path)
    assert phone_state.pending is None
    assert np.array_equal(phone_state.residual, RESIDUAL)


def test_download_goes_on_where_it_is_and_a_new_one_starts_over(tmp_path: Path) -> None:
    phone_state = full(tmp_path)
    phone_state.extend_download(3, b"defg")
    phone_state.extend_download(5, b"X")
    phone_state.begin_download(DIGEST)
    assert bytes(phone_state.download) == bytes(PhoneState(tmp_path).download) == b"abcdeX"
    phone_state.begin_download(b"87654321")
    assert bytes(phone_state.download) == bytes(PhoneState(tmp_path).download) == b""


def test_initial_weights_are_kept_beside_the_model_and_written_once(tmp_path: Path) -> None:
    phone_state = PhoneState(tmp_path)
    phone_state.enter("ab12", 5)
    phone_state.hold(3, WEIGHTS, WEIGHTS - 1)
    written = (tmp_path / "initial").stat().st_mtime_ns
    phone_state.hold(4, WEIGHTS + 1, phone_state.initial)
    assert (tmp_path / "initial").stat().st_mtime_ns == written
    again = PhoneState(tmp_path)
    assert again.initial is not None and again.initial.tolist() == (WEIGHTS - 1).tolist()
    again.enter("cd34", 5)
    assert again.initial is None and PhoneState(tmp_path).initial is None


def test_model_that_arrived_ends_the_download(tmp_path: Path) -> None:
    full(tmp_path).hold(4, WEIGHTS + 1)
    phone_state = PhoneState(tmp_path)
    assert (phone_state.held_version, phone_state.download_digest, len(phone_state.download)) == (4, b"", 0)


@pytest.mark.parametrize("name", ["phone", "model", "update", "residual", "download"])
@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x01", msgpack.packb({"other": 1}), b"\x81"])
def test_broken_file_is_named_with_the_way_out(tmp_path: Path, name: str, content: bytes) -> None:
    full(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"cannot read .*{name}: .*; remove it to begin anew"):
        PhoneState(tmp_path)


def test_weights_that_are_no_float32_are_told(tmp_path: Path) -> None:
    full(tmp_path)
    (tmp_path / "model").write_bytes(msgpack.packb({"version": 3, "weights": b"12345"}))
    with pytest.raises(ConfigError, match="5 bytes are no float32 numbers; remove it"):
        PhoneState(tmp_path)


def test_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot use the state directory"):
        PhoneState(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("phone", {"name": "a" * 65}),
        ("phone", {"shard": -5}),
        ("phone", {"shard": True}),
        ("model", {"version": -2}),
        ("update", {"round": 1 << 60}),
        ("update", {"examples": -1}),
        ("download", {"digest": b"123456789"}),
    ],
)
def test_what_the_server_could_not_be_told_is_found_before(tmp_path: Path, name: str, changed: dict[str, Any]) -> None:
    full(tmp_path)
    path = tmp_path / name
    path.write_bytes(msgpack.packb(msgpack.unpackb(path.read_bytes()) | changed))
    with pytest.raises(ConfigError, match=f"{name}: its {next(iter(changed))} is of another kind; remove it to begin"):
        PhoneState(tmp_path)


def test_what_cannot_be_read_or_removed_is_told(tmp_path: Path) -> None:
    phone_state = full(tmp_path)
    (tmp_path / "download.part").unlink()
    (tmp_path / "download.part").mkdir()
    with pytest.raises(ConfigError, match=r"cannot read .*download\.part: Is a directory; remove it"):
        PhoneState(tmp_path)
    with pytest.raises(LocalError, match=r"cannot write .*download\.part: "):
        phone_state.hold(4, WEIGHTS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this machine")
def test_full_disk_is_a_sentence_and_leaves_what_was_kept(tmp_path: Path) -> None:
    phone_state = full(tmp_path)
    for name in ("update", "model", "phone"):
        (tmp_path / f"{name}.new").symlink_to("/dev/full")
    with pytest.raises(LocalError, match=r"cannot write .*update: No space left on device; the phone goes on from it"):
        phone_state.put_update(PendingUpdate(9, b"x", 1, None))
    with pytest.raises(LocalError, match="No space left on device"):
        phone_state.hold(9, WEIGHTS)
    with pytest.raises(LocalError, match="No space left on device"):
        phone_state.name_phone("another")
    assert same(PhoneState(tmp_path), full(tmp_path / "whole"))
