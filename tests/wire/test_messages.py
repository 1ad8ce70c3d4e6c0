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
    Ack,
    AnyMessage,
    Finish,
    Hello,
    UpdateBegin,
    UpdateChunk,
    pack,
    unpack,
)

HELLO = Hello(PROTOCOL_VERSION, "phone-7", -1, 0, link="3g", link_bytes_per_s=91815)


def test_message_round_trips() -> None:
    for message in (HELLO, Ack(3, 100), UpdateBegin(1, 5, b"12345678", 10, 0, b"hello")):
        assert unpack(pack(message)) == message


def test_messages_around_a_small_update_take_under_60_bytes() -> None:
    # Client frames carry 4 bytes of mask; up to 125 bytes a frame's header is 2, above it is 4.
    begin = len(pack(UpdateBegin(20, 229, b"12345678", 600, 0, bytes(229)))) - 229 + 4 + 4
    ack = len(pack(Ack(20, 229))) + 2
    assert begin + ack < 60


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
    with pytest.raises(VersionError, match="protocol 2"):
        unpack(msgpack.packb([1, 1, "whatever", "came", "later"]))


def test_own_message_outside_its_limits_is_not_sent() -> None:
    with pytest.raises(msgspec.ValidationError):
        pack(Finish("x" * 1000))


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
