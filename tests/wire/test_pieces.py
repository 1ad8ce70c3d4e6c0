"""Bytes in pieces are the bytes that they would be in one."""

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
