"""The frame around a message is the one that the library makes and reads."""

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]
from websockets.streams import StreamReader

from featherfed.wire.framing import Framed, framed_bytes, masked_frame, sole_message, unmasked_frame

SIZES = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, 70_000])


def read(parser: Generator[None, None, Frame]) -> Frame | None:
    """Return the frame that a parser makes of what its reader has, or None where that is not all of it."""
    try:
        next(parser)
    except StopIteration as done:
        frame: Frame = done.value
        return frame
    return None


@given(SIZES)
def test_an_unmasked_frame_is_the_librarys(size: int) -> None:
    message = bytes(size)
    assert unmasked_frame(message) == Frame(Opcode.BINARY, message).serialize(mask=False)
    assert framed_bytes(size, masked=False) == len(unmasked_frame(message))


@given(SIZES)
def test_a_masked_frame_is_read_by_the_library(size: int) -> None:
    message, reader = bytes([7]) * size, StreamReader()
    reader.feed_data(masked_frame(message))
    assert read(Frame.parse(reader.read_exact, mask=True)) == Frame(Opcode.BINARY, message)
    assert framed_bytes(size, masked=True) == len(masked_frame(message))
    assert len(Frame(Opcode.BINARY, message).serialize(mask=True)) == len(masked_frame(message))


@pytest.mark.parametrize("masked", [False, True])
@given(size=SIZES, data=st.data())
def test_of_a_frame_that_is_cut_the_parser_holds_what_is_said(masked: bool, size: int, data: Any) -> None:
    framed, reader = Framed(bytes(size), masked=masked), StreamReader()
    received = data.draw(st.integers(0, len(framed) - 1))
    reader.feed_data(bytes(framed)[:received])
    assert read(Frame.parse(reader.read_exact, mask=masked)) is None
    assert framed.held_of(received) == len(reader.buffer)


@pytest.mark.parametrize("masked", [False, True])
@given(size=SIZES, data=st.data())
def test_a_frame_that_is_all_there_is_is_read_as_the_library_reads_it(masked: bool, size: int, data: Any) -> None:
    message, unmask = data.draw(st.randoms(use_true_random=False)).randbytes(size), apply_mask if masked else None
    frame = Frame(Opcode.BINARY, message).serialize(mask=masked)
    cut = data.draw(st.integers(0, len(frame) - 1))
    for form in (bytes, memoryview):
        assert sole_message(form(frame), unmask) == message
        assert sole_message(form(frame[:cut]), unmask) is None
        assert sole_message(form(frame + frame[:cut]), unmask) == (message if cut == 0 else None)
    assert sole_message(frame, None if masked else apply_mask) is None


@given(st.binary(max_size=20), st.booleans())
def test_whatever_else_comes_is_left_to_the_library(data: bytes, masked: bool) -> None:
    read_here, reader = sole_message(data, apply_mask if masked else None), StreamReader()
    reader.feed_data(data)
    if read_here is not None:
        assert read(Frame.parse(reader.read_exact, mask=masked)) == Frame(Opcode.BINARY, read_here)
        assert not reader.buffer


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.CONT, Opcode.PING, Opcode.PONG, Opcode.CLOSE])
def test_frames_of_other_kinds_are_left_to_the_library(opcode: Opcode) -> None:
    assert sole_message(Frame(opcode, b"abc").serialize(mask=False), None) is None
    assert sole_message(Frame(Opcode.BINARY, b"abc", fin=False).serialize(mask=False), None) is None
