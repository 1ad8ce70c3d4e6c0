import numpy as np
import pytest

from featherfed.codec.bits import pack, packed_bytes, unpack


@pytest.mark.parametrize("width", range(9))
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1001])
def test_symbols_follow_each_other_highest_bit_first(width: int, size: int) -> None:
    symbols = np.random.default_rng(width).integers(0, 1 << width, size).astype(np.uint8)
    packed = pack(symbols, width)
    text = "".join(f"{symbol:0{width}b}" for symbol in symbols.tolist()) if width else ""
    assert packed == bytes(int(text[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(text), 8))
    assert len(packed) == packed_bytes(size, width)
    assert unpack(packed, size, width).tolist() == symbols.tolist()
