from hypothesis import given
from hypothesis import strategies as st

from featherfed.server.storage.ledger import DIRECTIONS, FIELDS, Ledger, Traffic

COUNTS = st.builds(Traffic, *(st.integers(0, 1 << 40) for _ in FIELDS))
KEYS = st.tuples(st.integers(1, 3), st.integers(-1, 3), st.sampled_from(DIRECTIONS))


def test_counts_are_those_that_the_design_names() -> None:
    assert FIELDS == ("theory", "payload", "message", "socket", "handshake", "resent", "wasted", "masks", "points")


@given(st.lists(st.tuples(KEYS, COUNTS), max_size=20))
def test_totals_of_the_rounds_add_up_to_the_total(additions: list[tuple[tuple[int, int, str], Traffic]]) -> None:
    ledger = Ledger()
    for key, traffic in additions:
        ledger.entry(*key).add(traffic)
    for way in DIRECTIONS:
        by_round = Traffic()
        for number in (1, 2, 3):
            by_round.add(ledger.total(way, number))
        assert by_round == ledger.total(way)
        for field in FIELDS:
            expected = sum(getattr(traffic, field) for key, traffic in additions if key[2] == way)
            assert getattr(ledger.total(way), field) == expected


def test_change_is_taken_once() -> None:
    ledger = Ledger({(1, 0, "uplink"): Traffic(payload=5)})
    assert ledger.take_changed() == {}
    ledger.entry(1, 0, "uplink").payload += 2
    ledger.entry(2, 1, "downlink").socket += 3
    assert ledger.take_changed() == {(1, 0, "uplink"): Traffic(payload=7), (2, 1, "downlink"): Traffic(socket=3)}
    assert ledger.take_changed() == {}
