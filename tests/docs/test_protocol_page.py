"""docs/PROTOCOL.md says what the code does, field by field and byte by byte."""

import dataclasses
import re
import struct
import typing
from hashlib import sha256

import msgpack
import numpy as np
import pytest
from websockets.frames import CloseCode

from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.backoff import CAP_S, FIRST_S
from featherfed.edge_client.learner import fingerprint_of
from featherfed.errors import ProtocolError
from featherfed.randomness import RoundKey
from featherfed.server.door.limits import FRAME_BYTES, HANDSHAKE_BYTES, HELLO_BYTES
from featherfed.server.service import SILENT_HEARTBEATS
from featherfed.training_settings import MAX_SETTINGS_BYTES, Training
from featherfed.wire import messages
from featherfed.wire.closing import MAX_REASON_BYTES, Close
from featherfed.wire.guarding import LIBRARY_FAULTS
from featherfed.wire.messages import (
    MAX_CHUNK_BYTES,
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    Accepted,
    Ack,
    Cancel,
    Finish,
    Hello,
    ModelBegin,
    Task,
    UpdateBegin,
    UpdateChunk,
    Welcome,
    WholeModel,
    WholeUpdate,
    pack,
    unpack,
)
from featherfed.wire.session import TABLES, Role, Session, State
from tests.docs import page_initial
from tests.docs.exchange import CUT, NAME, PAGE, RUN, SPEC
from tests.docs.sizes import limit_rows, most_bytes, size_rows
from tests.docs.types import fields_of, model_rows, number_of, session_rows
from tests.server.peer import digest

TEXT = PAGE.read_text(encoding="utf-8")
WORDS = " ".join(TEXT.split())


def between(name: str) -> str:
    return TEXT.split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0].strip()


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_message_and_field_is_there_with_its_type_and_limits() -> None:
    for kind in typing.get_args(messages.AnyMessage):
        heading = re.search(rf"^### (\d+) {kind.__name__} — (phone|server)$", TEXT, re.MULTILINE)
        assert heading, kind.__name__
        assert int(heading[1]) == number_of(kind)
        sender = Role(heading[2])
        assert any(kind in following for following in TABLES[sender].values())
        section = TEXT[heading.end() :].split("\n#")[0]
        table = [row[:2] for row in rows(section)]
        assert table == [list(pair) for pair in fields_of(kind)]
        assert all(row[2] for row in rows(section))


def test_elements_of_training_are_the_code_s_in_their_order() -> None:
    section = TEXT.split("#### Training and settings")[1].split("\n#")[0]
    assert [row[0] for row in rows(section)] == [field.name for field in dataclasses.fields(Training)]
    assert f"Names and texts of one map have {MAX_SETTINGS_BYTES:,} bytes at most" in WORDS


def test_session_table_is_the_code_s() -> None:
    assert rows(between("session")) == session_rows()


def test_close_codes_are_the_code_s() -> None:
    ours = [[str(code.value), code.name, "yes" if code.final else "no"] for code in Close]
    library_s = [[str(code), CloseCode(code).name, "no"] for code in LIBRARY_FAULTS]
    assert [row[:3] for row in rows(between("codes"))] == sorted(ours + library_s)


def test_models_are_the_code_s() -> None:
    assert rows(between("models")) == model_rows()


def test_numbers_in_the_text_are_the_code_s() -> None:
    assert f"protocol version **{PROTOCOL_VERSION}**" in TEXT
    assert f"a sentence of at most {MAX_REASON_BYTES} bytes" in TEXT
    assert f"of more than {MAX_FRAME_BYTES:,} bytes; what a phone may send is at most {FRAME_BYTES:,}" in WORDS
    assert f"a request of more than {HANDSHAKE_BYTES:,} bytes" in WORDS
    assert f"between 0 and {FIRST_S:g} s · 2^failures, at most {CAP_S:g} s" in WORDS
    assert f"either way for {SILENT_HEARTBEATS:g} times that" in WORDS
    assert f"The digest of no bytes at all is `{digest(b'').hex()}`" in WORDS


def test_limits_and_sizes_are_the_code_s() -> None:
    assert rows(between("limits")) == limit_rows()
    assert rows(between("sizes")) == size_rows()
    # What a phone may say fits what the server takes, however wide its msgpack writes numbers and lengths.
    assert most_bytes(Hello) + 100 < HELLO_BYTES
    assert most_bytes(UpdateBegin) + 50 < FRAME_BYTES
    # What names a problem's tensors and settings is bounded as a whole: tests/learning/test_model_sizes.py.
    fixed = {*typing.get_args(messages.AnyMessage)} - {Welcome, messages.Task}
    assert max(map(most_bytes, fixed)) < MAX_FRAME_BYTES


def test_sizes_are_those_of_the_largest_messages() -> None:
    wide, big = "\N{GRINNING FACE}", (1 << 53) - 1
    data = bytes(MAX_CHUNK_BYTES)
    assert len(pack(UpdateBegin(big, big, bytes(8), big, big, data, big))) == most_bytes(UpdateBegin)
    assert len(pack(ModelBegin(big, big, "x" * 256, [big] * 4096, bytes(8), big, data))) == most_bytes(ModelBegin)
    # Its version takes a byte.
    hello = Hello(
        PROTOCOL_VERSION, wide * 64, big, big, bytes(8), wide * 64, big, big, wide * 32, big, bytes(8), big, big
    )
    assert len(pack(hello)) == most_bytes(Hello) - 8


def test_frames_are_read_in_the_encodings_of_the_page_and_in_no_others() -> None:
    task = [3, 1, 0, {"lr": 0.5}]
    assert unpack(msgpack.packb(task, use_single_float=True)) == unpack(msgpack.packb(task))
    wide = (b"\xdd\0\0\0\2\xcc\x0a", b"\xdc\0\2\xd0\x0a")
    numbers = (b"\1", b"\xcc\1", b"\xcf" + bytes(7) + b"\1", b"\xd0\1", b"\xd3" + bytes(7) + b"\1")
    for frame in (head + number for head in wide for number in numbers):
        assert unpack(frame) == Cancel(1)
    for value in (1.0, True, None, "1", b"1", [1], {}):
        with pytest.raises(ProtocolError):
            unpack(msgpack.packb([10, value]))
    for value in (float("nan"), float("inf"), True, None, "1"):
        with pytest.raises(ProtocolError):
            unpack(msgpack.packb([1, PROTOCOL_VERSION, "a", 0, 0, b"", "", 0, 0, "", value]))
    chunk = [7, 0, b"abc"]
    assert unpack(b"\x93\7\0\xc6\0\0\0\3abc") == unpack(msgpack.packb(chunk))
    # The last fields of some may be left out.
    assert unpack(msgpack.packb([3, 1, 0])) == unpack(msgpack.packb([3, 1, 0, {}])) == Task(1, 0)
    for other in ([7, 0, "abc"], [7, 0], [*chunk, 0]):
        with pytest.raises(ProtocolError):
            unpack(msgpack.packb(other))


def frames(name: str = "exchange") -> list[tuple[Role, bytes]]:
    """Return the frames that stand in the page's hex."""
    result: list[tuple[Role, bytes]] = []
    for line in between(name).strip("`").splitlines():
        who, text = line[:8].strip(), line[8:].strip()
        if who:
            result.append((Role(who), bytes.fromhex(text)))
        elif text:
            role, frame = result.pop()
            result.append((role, frame + bytes.fromhex(text)))
    return result


def test_exchange_in_hex_is_a_whole_session_that_decodes() -> None:
    session, heard = Session(), []
    for role, frame in frames():
        message = unpack(frame)
        session.follow(role, message)
        heard.append(message)
    kinds = [Hello, Welcome, Task, WholeUpdate, Accepted, WholeModel, WholeUpdate, Accepted, Finish]
    assert [type(message) for message in heard] == kinds
    assert session.states[Role.SERVER] is State.OVER
    first, welcome, first_task, _, _, model, update, accepted, _ = heard
    assert isinstance(first, Hello)
    assert isinstance(welcome, Welcome)
    assert isinstance(first_task, Task)
    assert isinstance(model, WholeModel)
    assert isinstance(update, WholeUpdate)
    assert isinstance(accepted, Accepted)
    assert (first.name, welcome.run, welcome.uplink, welcome.downlink) == (NAME, RUN, SPEC, SPEC)
    assert (model.task().changes, model.base) == ({}, 0)
    assert (first_task.round, first_task.version) == (1, 0)
    assert (model.task().round, model.version, update.round, accepted.round) == (2, 1, 2, 2)
    layout, pipeline = fingerprint_of(welcome).layout, Pipeline.parse(SPEC)
    shapes = [tensor.shape for tensor in layout.tensors]
    initial = page_initial.weights(welcome.initial, shapes, welcome.seed)
    assert sha256(struct.pack(f"<{len(initial)}f", *initial)).digest()[:8] == welcome.initial_digest
    weights = np.float32(initial) + pipeline.decode(model.data, layout, RoundKey(welcome.seed, 1))
    delta = pipeline.decode(update.data, layout, RoundKey(welcome.seed, 2, welcome.shard))
    assert np.isfinite(weights).all()
    assert 0 < np.count_nonzero(delta) <= 29


def test_resume_in_hex_goes_on_from_the_acknowledged_byte() -> None:
    heard = [unpack(frame) for _, frame in frames("resume")]
    first, first_ack, again, _, question, ack, rest, accepted = heard
    assert isinstance(first, UpdateBegin)
    assert isinstance(again, Hello)
    assert isinstance(question, UpdateBegin)
    assert isinstance(rest, UpdateChunk)
    assert first_ack == ack == Ack(1, CUT)
    assert (again.run, again.held_version, again.pending_round) == (RUN, 0, 1)
    assert (question.digest, question.size, question.data) == (first.digest, first.size, b"")
    assert rest.offset == CUT
    assert digest(first.data + rest.data) == first.digest
    assert accepted == Accepted(1)
