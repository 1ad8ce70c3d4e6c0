from pathlib import Path

import pytest

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.link import Link, LinkSpec
from featherfed.bandwidth_sim.trace import PACKET_BYTES, Trace, read_trace


def traced(*stamps_ms: int) -> Link:
    return Link(LinkSpec(trace=Trace(stamps_ms), overhead_bytes=0, mss=PACKET_BYTES), 0)


def test_each_stamp_lets_one_packet_leave() -> None:
    link = traced(0, 10, 10, 40)
    assert [link.send(0.0, PACKET_BYTES).departs_at_s for _ in range(4)] == [0.0, 0.01, 0.01, 0.04]


def test_the_trace_wraps_at_its_last_stamp() -> None:
    link = traced(5, 20)
    assert [link.send(0.0, PACKET_BYTES).departs_at_s for _ in range(5)] == [0.005, 0.02, 0.025, 0.04, 0.045]


def test_an_unused_opportunity_is_lost() -> None:
    link = traced(5, 20, 100)
    assert link.send(0.006, PACKET_BYTES).departs_at_s == 0.02
    assert link.send(1000.021, PACKET_BYTES).departs_at_s == 1000.1


def test_small_packets_share_an_opportunity_and_large_ones_go_on_in_the_next() -> None:
    link = traced(10, 20, 30)
    assert [link.send(0.0, n).departs_at_s for n in (1000, 504, 2000, 1008)] == [0.01, 0.01, 0.03, 0.03]


def test_the_rest_of_an_opportunity_is_lost_when_the_queue_ran_empty() -> None:
    link = traced(10, 20)
    assert link.send(0.0, 100).departs_at_s == 0.01
    assert link.send(0.011, 100).departs_at_s == 0.02


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1\n2\nx\n", "line 3"),
        ("5\n4\n", "line 2"),
        ("", "line 1"),
        ("0\n0\n", "line 2"),
        ("1\n\n3\n", "line 2"),
        ("9" * 5000, "line 1: '9{40}' is not a whole number of milliseconds of up to 15 digits"),
    ],
)
def test_a_malformed_trace_is_refused_with_its_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "bad.trace"
    path.write_text(text)
    with pytest.raises(LinkConfigError, match=line):
        read_trace(path)


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinkConfigError, match="cannot read the trace"):
        read_trace(tmp_path / "none")
