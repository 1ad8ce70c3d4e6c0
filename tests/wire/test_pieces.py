"""Bytes in pieces are the bytes that they would be in one."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from featherfed.wire.pieces import Pieces


@given(st.binary(max_size=5), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9)), max_size=12))
def test_pieces_are_what_was_put_last_at_each_place(begun: bytes, puts: list[tuple[float, bytes]]) -> None:
    pieces, whole = Pieces(begun), bytearray(begun)
    for share, data in puts:
        offset = round(share * len(whole))
        pieces.put(offset, data)
        whole[offset:] = data
        assert len(pieces) == len(whole)
    assert bytes(pieces) == whole
    assert pieces.same_as(bytes(whole))
    assert pieces.same_as(bytes(whole) + b"more", len(whole))
    assert not pieces.same_as(bytes(whole) + b"m")
    for place in range(len(whole)):
        other = bytearray(whole)
        other[place] ^= 1
        assert not pieces.same_as(bytes(other))


def test_small_pieces_take_no_more_room_than_their_bytes() -> None:
    tracemalloc.start()
    try:
        pieces = Pieces()
        for offset in range(300_000):
            pieces.put(offset, bytes((offset % 251,)))
        assert tracemalloc.get_traced_memory()[0] < 3 * len(pieces)
    finally:
        tracemalloc.stop()
    assert bytes(pieces) == bytes(offset % 251 for offset in range(300_000))


def test_large_pieces_are_not_copied() -> None:
    pieces, large = Pieces(), bytes(5000)
    pieces.put(0, large)
    pieces.put(5000, b"small")
    pieces.put(5005, large)
    assert sum(part is large for part in pieces._parts) == 2
