"""What chunks cost on links of all kinds: their headers, and what breaks cut."""

import math
import random

import pytest

from featherfed.wire.chunking import AROUND_BYTES, BEHIND_UP_BYTES, ChunkSizer, behind_bytes, seen_bytes_per_s
from featherfed.wire.messages import MAX_CHUNK_BYTES

MOST = 65536


def transfer(sizer: ChunkSizer, size: int, lives: "list[float]") -> tuple[int, int]:
    """Send so many bytes over connections that carry `lives` bytes each; return how many chunks, and bytes cut."""
    done = chunks = cut = 0
    while done < size:
        had, left = done, lives[-1]
        while done < size:
            # As a socket does that takes all at once: nothing is known to have arrived.
            chunk = min(sizer.chunk_bytes(MOST, done - had), size - done)
            if chunk > left:
                break
            left -= chunk
            done += chunk
            chunks += 1
        sizer.carried(done - had)
        if done < size:
            cut += int(left)
            sizer.broke()
            lives.pop()
        else:
            lives[-1] = left
    return chunks, cut


def test_chunks_grow_within_the_first_transfer_of_a_link_that_does_not_break() -> None:
    sizer = ChunkSizer()
    chunks, cut = transfer(sizer, 800_000, [math.inf])
    # Of the size that the first one has it would be 90.
    assert (chunks, cut) == (20, 0)
    assert sizer.chunk_bytes(MOST) == MOST


def on_a_link_of(bytes_per_s: float, sizer: ChunkSizer, size: int) -> list[int]:
    """Return the sizes of the chunks of an update on a link that carries so much and does not break."""
    sizes: list[int] = []
    while (sent := sum(sizes)) < size:
        seconds = sent / bytes_per_s
        most = min(behind_bytes(sent, seconds, BEHIND_UP_BYTES), MAX_CHUNK_BYTES)
        sizes.append(min(size - sent, sizer.chunk_bytes(most, sent, bytes_per_s=seen_bytes_per_s(sent, seconds))))
    sizer.carried(size)
    return sizes


def test_a_link_that_carries_much_has_few_large_chunks_from_its_first_transfer_on() -> None:
    fast, slow = ChunkSizer(), ChunkSizer()
    assert len(on_a_link_of(1e9, fast, 800_000)) <= 11
    assert len(on_a_link_of(1e9, fast, 800_000)) <= 8
    # 2g: nothing is granted, and no chunk takes longer than it did.
    sizes = on_a_link_of(32_000, slow, 800_000)
    assert len(sizes) == 20 and max(sizes) <= BEHIND_UP_BYTES


def test_what_a_fast_link_was_granted_is_taken_back_when_it_breaks() -> None:
    fast, slow = ChunkSizer(), ChunkSizer()
    fast.chunk_bytes(MOST, 15_000, bytes_per_s=1e7)
    slow.chunk_bytes(MOST, 15_000)
    for sizer in (fast, slow):
        sizer.carried(15_000)
        sizer.broke()
    # What is left of it is half a chunk, which was under way.
    assert fast.chunk_bytes(MOST, bytes_per_s=1e7) < 2 * slow.chunk_bytes(MOST)


@pytest.mark.parametrize("between", [5_000, 20_000, 100_000, 1_000_000])
def test_what_breaks_cut_and_headers_take_is_near_the_least_that_is_possible(between: int) -> None:
    generator = random.Random(between)
    payload = cost = breaks = 0
    for _ in range(20):
        sizer, lives = ChunkSizer(), [generator.expovariate(1 / between) for _ in range(5000)]
        before = len(lives)
        for _ in range(4):
            chunks, cut = transfer(sizer, 500_000, lives)
            payload += 500_000
            cost += chunks * AROUND_BYTES + cut
        breaks += before - len(lives)
    assert breaks > 10
    least = math.sqrt(2 * AROUND_BYTES / between)
    assert cost / payload < 1.5 * least + 0.005
