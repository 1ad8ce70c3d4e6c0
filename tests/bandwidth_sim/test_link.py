import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.bandwidth_sim.drop import DropRule
from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.link import Link, LinkSpec
from featherfed.bandwidth_sim.outage import GilbertElliott, Schedule
from featherfed.wire.messages import MAX_CHUNK_BYTES


def upload(link: Link, total_bytes: int, now_s: float = 0.0) -> tuple[float, float]:
    """Send as a sender does that respects the queue; return when the last piece was put and when it departed."""
    piece = link.spec.piece_bytes
    departs_s = now_s
    for offset in range(0, total_bytes, piece):
        now_s = link.room_at(now_s)
        departs_s = link.send(now_s, min(piece, total_bytes - offset)).departs_at_s
    return now_s, departs_s


@pytest.mark.parametrize("bits_per_s", [14_400, 256_000, 20_000_000, 100_000_000])
def test_a_megabyte_takes_the_theoretical_time_with_headers(bits_per_s: int) -> None:
    put_s, departs_s = upload(Link(LinkSpec(rate_bytes_per_s=bits_per_s / 8), 0), 1_000_000)
    assert departs_s == pytest.approx(8e6 / bits_per_s * 1514 / 1448)
    assert departs_s - put_s <= 32_000 / (bits_per_s / 8) + 0.4


def test_goodput_at_256_kbit_is_what_the_kernel_gave() -> None:
    assert LinkSpec(rate_bytes_per_s=32_000).goodput_bytes_per_s * 8 == pytest.approx(244_840, rel=1e-5)


def test_idle_time_earns_no_burst() -> None:
    link = Link(LinkSpec(rate_bytes_per_s=1000, overhead_bytes=0), 0)
    link.send(0.0, 1000)
    assert link.send(100.0, 1000).departs_at_s == 101.0


def test_the_queue_holds_back_the_sender_and_loses_nothing() -> None:
    link = Link(LinkSpec(rate_bytes_per_s=1000, overhead_bytes=0), 0)
    link.send(0.0, 1000)
    assert link.room_at(0.0) == pytest.approx(0.6)


def test_two_connections_share_one_link_in_order() -> None:
    link = Link(LinkSpec(rate_bytes_per_s=1000, overhead_bytes=0), 0)
    assert [link.send(0.0, 500).departs_at_s for _ in range(4)] == [0.5, 1.0, 1.5, 2.0]


def test_a_message_is_one_piece_where_nothing_slows_it_and_overtakes_nothing_that_was() -> None:
    assert LinkSpec().piece_bytes >= MAX_CHUNK_BYTES + 128
    # Each jitter is drawn for a piece, an outage may begin between two: these stay as fine as they were.
    for other in (LinkSpec(delay_s=0.1), LinkSpec(jitter_s=0.1), LinkSpec(drop=DropRule(after_bytes=9))):
        assert other.piece_bytes == 32 * 1024
    link = Link(LinkSpec(rate_bytes_per_s=1000, overhead_bytes=0, delay_s=1.0), 0)
    link.send(0.0, 2000)
    link.change(LinkSpec(), 0.5)
    assert link.send(0.5, 1000).arrives_at_s == 3.0
    assert link.room_at(0.5) == 1.6
    passage = link.send(4.0, 1 << 20)
    assert (passage.departs_at_s, passage.arrives_at_s) == (4.0, 4.0)


def test_rate_zero_lets_nothing_pass_until_it_is_changed() -> None:
    link = Link(LinkSpec(rate_bytes_per_s=0), 0)
    assert link.room_at(3.0) == math.inf
    assert link.send(3.0, 1).arrives_at_s == math.inf
    link.change(LinkSpec(rate_bytes_per_s=1000, overhead_bytes=0), 5.0)
    assert link.send(5.0, 1000).departs_at_s == 6.0


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5000)), max_size=40), st.integers(0, 9))
def test_nothing_overtakes_and_nothing_arrives_before_it_departs(pieces: list[tuple[float, int]], seed: int) -> None:
    spec = LinkSpec(rate_bytes_per_s=9000, delay_s=0.1, jitter_s=0.09, loss=0.1, outage=GilbertElliott(3, 1))
    link, now, before = Link(spec, seed), 0.0, (0.0, 0.0)
    for wait, size in pieces:
        now += wait
        passage = link.send(now, size)
        assert passage.departs_at_s > now
        assert passage.arrives_at_s >= passage.departs_at_s
        assert (passage.departs_at_s, passage.arrives_at_s) >= before
        assert passage.arrives_at_s >= before[1]
        before = (passage.departs_at_s, passage.arrives_at_s)


def test_the_seed_decides_jitter_loss_and_outages() -> None:
    spec = LinkSpec(rate_bytes_per_s=9000, delay_s=0.1, jitter_s=0.09, loss=0.1, outage=GilbertElliott(3, 1))

    def passages(seed: int) -> list[float]:
        link = Link(spec, seed)
        return [link.send(i, 900).arrives_at_s for i in range(50)]

    assert passages(1) == passages(1)
    assert passages(1) != passages(2)


@pytest.mark.parametrize(("down_s", "low_s", "high_s"), [(3, 3, 5.7), (10, 17.6, 19.9), (30, 31, 40)])
def test_back_off_outlasts_an_outage_as_the_kernel_did(down_s: float, low_s: float, high_s: float) -> None:
    for seed in range(20):
        link = Link(LinkSpec(rate_bytes_per_s=1000, overhead_bytes=0, outage=Schedule(((5, down_s), (999, 1)))), seed)
        gap_s = link.send(0.0, 6000).departs_at_s - 6
        assert low_s <= gap_s <= high_s


def test_who_is_silent_during_an_outage_waits_for_no_back_off() -> None:
    link = Link(LinkSpec(rate_bytes_per_s=1000, overhead_bytes=0, outage=Schedule(((5, 10), (999, 1)))), 0)
    link.send(0.0, 100)
    assert link.send(15.0, 1000).departs_at_s == 16.0


def test_gilbert_elliott_is_down_for_its_share_of_the_time() -> None:
    link = Link(LinkSpec(rate_bytes_per_s=1000, overhead_bytes=0, outage=GilbertElliott(3, 0.05)), 0)
    departs_s = link.send(0.0, 10_000_000).departs_at_s
    assert 10_000 * 1.01 < departs_s < 10_000 * 1.2


def test_loss_slows_bulk_by_mathis_and_loses_no_byte() -> None:
    spec = LinkSpec(rate_bytes_per_s=10_000_000, delay_s=0.1, loss=0.01)
    assert spec.goodput_bytes_per_s < 1448 / 0.2 * 1.23 / 0.1
    assert upload(Link(spec, 0), 1_000_000)[1] == pytest.approx(1e6 / spec.goodput_bytes_per_s)


def test_a_connection_ends_after_its_bytes_or_seconds() -> None:
    link = Link(LinkSpec(drop=DropRule(after_bytes=20_000, after_s=9, how="stall")), 0)
    assert link.allowance(19_000) == 1000
    assert link.ends(1.0, opened_at_s=0.0, carried_bytes=19_999) is None
    assert link.ends(1.0, opened_at_s=0.0, carried_bytes=20_000) == "stall"
    assert link.ends(9.0, opened_at_s=0.0, carried_bytes=0) == "stall"
    assert Link(LinkSpec(), 0).allowance(10**9) == math.inf


@pytest.mark.parametrize("settings", [{"rate_bytes_per_s": -1}, {"loss": 1.0}, {"delay_s": -1}, {"mss": 0}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(LinkConfigError):
        LinkSpec(**settings)
