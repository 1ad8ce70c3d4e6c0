import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.codec.residues import dtype_of, pack, unpack
from featherfed.errors import CodecError

WIDTHS = range(2, 17)
COUNTS = (0, 1, 2, 7, 8, 9, 64, 1001)


def drawn(width: int, count: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 1 << width, count).astype(dtype_of(width))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", COUNTS)
def test_packed_residues_are_one_number_of_their_bits_and_come_back(width: int, count: int) -> None:
    residues = drawn(width, count)
    data = pack(residues, width)
    bits = "".join(f"{residue:0{width}b}" for residue in residues)
    assert "".join(f"{byte:08b}" for byte in data) == bits + "0" * (-len(bits) % 8)
    back = unpack(data, count, width)
    assert back.dtype == residues.dtype
    assert np.array_equal(back, residues)


@pytest.mark.parametrize("width", WIDTHS)
def test_another_length_is_refused_with_both_numbers(width: int) -> None:
    data = pack(drawn(width, 11), width)
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(CodecError, match=rf"11 residues of {width} bits are {len(data)} bytes, and {len(wrong)}"):
            unpack(wrong, 11, width)


@pytest.mark.parametrize(("width", "count"), [(4, 1), (3, 3), (12, 3), (15, 2)])
def test_bits_after_the_last_residue_must_be_zeros(width: int, count: int) -> None:
    data = bytearray(pack(drawn(width, count), width))
    data[-1] |= 1
    with pytest.raises(CodecError, match="not zeros"):
        unpack(bytes(data), count, width)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 16), st.integers(0, 40), st.data())
def test_any_bytes_are_residues_or_are_refused(width: int, count: int, data: st.DataObject) -> None:
    length = -(-count * width // 8)
    raw = data.draw(st.one_of(st.binary(max_size=90), st.binary(min_size=length, max_size=length)))
    try:
        residues = unpack(raw, count, width)
    except CodecError as error:
        assert str(error)
    else:
        assert residues.shape == (count,)
        assert int(residues.max(initial=0)) < 1 << width
        # No two payloads stand for the same residues.
        assert pack(residues, width) == raw
