import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.errors import ProtocolError, RemoteError, VersionError
from featherfed.wire.messages import (
    MAX_CHUNK_BYTES,
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    Accepted,
    Ack,
    AnyMessage,
    Finish,
    Hello,
    ModelBegin,
    ModelChunk,
    Task,
    UpdateBegin,
    UpdateChunk,
    WholeModel,
    WholeUpdate,
    digest_of,
    pack,
    unpack,
)

HELLO = Hello(PROTOCOL_VERSION, "phone-7", -1, 0, link="3g", link_bytes_per_s=91815)


def test_message_round_trips() -> None:
    for message in (HELLO, Ack(3, 100), UpdateBegin(1, 5, b"12345678", 10, 0, b"hello")):
        assert unpack(pack(message)) == message


def test_a_phone_s_round_takes_27_bytes_around_its_payloads() -> None:
    # Client frames carry 4 bytes of mask; up to 125 bytes a frame's header is 2, above it is 4.
    update = len(pack(WholeUpdate(20, bytes(195)))) - 195 + 4 + 4
    model = len(pack(WholeModel(19, bytes(229)))) - 229 + 4
    assert update + model + len(pack(Accepted(20))) + 2 == 27


def test_a_phone_that_is_not_asked_again_is_told_so_in_four_bytes() -> None:
    assert len(pack(Finish())) + 2 == 4
    assert unpack(pack(Finish())) == Finish("")


@pytest.mark.parametrize("offset", [0, 127, 128, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 53) - 1])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 65535, MAX_CHUNK_BYTES])
def test_chunks_are_packed_as_all_messages_are(offset: int, size: int) -> None:
    for message in (ModelChunk(offset, bytes(size)), UpdateChunk(offset, bytes(size))):
        assert pack(message) == msgspec.msgpack.encode(message)
        assert unpack(pack(message)) == message


def test_whole_model_stands_for_its_task() -> None:
    assert WholeModel(19, b"").task() == Task(20, 19)


def test_whole_messages_are_the_beginnings_of_what_they_end() -> None:
    data = b"hello"
    assert WholeUpdate(1, data, 10).begin(600) == UpdateBegin(1, 5, digest_of(data), 10, 0, data)
    assert WholeUpdate(1, data).begin(600) == UpdateBegin(1, 5, digest_of(data), 600, 0, data)
    assert WholeModel(2, data).begin() == ModelBegin(2, 0, "", [5], digest_of(data), 0, data)
    assert WholeModel(2, data, 1).begin() == ModelBegin(2, 1, "", [5], digest_of(data), 0, data)
    for message in (WholeUpdate(1, data, 10), WholeUpdate(1, data), WholeModel(2, data, -1), WholeModel(2, data)):
        assert unpack(pack(message)) == message
    with pytest.raises(ProtocolError):
        unpack(msgpack.packb([12, 1, b"", 1]))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack: FormatError"),
        (pack(HELLO)[:-1], "not msgpack"),
        (pack(HELLO) + b"\0", "not msgpack"),
        (msgpack.packb({"a": 1}), "not a message"),
        (msgpack.packb({str(number): 1 for number in range(65)}), "not msgpack"),
        (msgpack.packb([99]), "not a message"),
        (msgpack.packb([8, -1, 0]), "not a message"),
        (msgpack.packb([8, 1]), "not a message"),
        (msgpack.packb([8, 1, 2, 3]), "not a message"),
        (msgpack.packb([7, 0, bytes(MAX_CHUNK_BYTES + 1)]), "not msgpack"),
        (pack(HELLO).replace(b"\xa23g", b"\xa2\x1bg"), "not a message"),
        (pack(HELLO).replace(b"\xa23g", b"\xa23\n"), "not a message"),
        (pack(HELLO).replace(b"phone-7", b"phone-\n"), "not a message"),
        (pack(HELLO).replace(b"\xa7phone-7", b"\xa6\xc2\x9b2J-7"), "not a message"),
        (pack(HELLO).replace(b"phone-7", b"p\xe2\x80\xaex-7"), "not a message"),
        (pack(HELLO).replace(b"phone-7", b"p\xe2\x81\xa7x-7"), "not a message"),
        (pack(HELLO).replace(b"phone-7", b"p\xe2\x80\xa8x-7"), "not a message"),
        (b"[" * 5000, "not msgpack"),
        (b"\x92\x0b\xa1\x80", "not msgpack"),
        (b"\x91" * 5000, "not msgpack"),
        (bytes(MAX_FRAME_BYTES + 1), f"exceeds limit of {MAX_FRAME_BYTES}"),
    ],
)
def test_what_is_no_message_is_refused_with_a_sentence(frame: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        unpack(frame)


def test_hello_of_another_version_is_told_apart_from_nonsense() -> None:
    with pytest.raises(VersionError, match="protocol 3"):
        unpack(msgpack.packb([1, 1, "whatever", "came", "later"]))


def test_own_message_outside_its_limits_is_not_sent() -> None:
    with pytest.raises(msgspec.ValidationError):
        pack(Finish("x" * 1000))
    for chunk in (ModelChunk(-1, b""), ModelChunk(1 << 53, b""), UpdateChunk(0, bytes(MAX_CHUNK_BYTES + 1))):
        with pytest.raises(msgspec.ValidationError):
            pack(chunk)


@settings(max_examples=2000, deadline=None)
@given(
    st.one_of(st.binary(max_size=200), st.builds(lambda n, d: pack(UpdateChunk(n, d)), st.integers(0, 9), st.binary()))
)
def test_any_bytes_are_a_message_or_a_remote_error(frame: bytes) -> None:
    try:
        message: AnyMessage = unpack(frame)
    except RemoteError as error:
        assert str(error)
    else:
        assert unpack(pack(message)) == message
