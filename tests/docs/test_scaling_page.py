"""docs/SCALING.md computes with the figures that docs/PERFORMANCE.md measured, and names tests that exist."""

import re

from tests.docs import scaling

TEXT = scaling.PAGE.read_text(encoding="utf-8")


def test_a_million_phones_take_what_one_took_a_million_times() -> None:
    for name, table in scaling.tables().items():
        there = TEXT.split(f"<!-- {name}: begin -->\n")[1].split(f"\n<!-- {name}: end -->")[0]
        assert there == table, "run: python -m tests.docs.scaling"


def test_every_test_that_is_named_is_there() -> None:
    named = set(re.findall(r"tests/[\w/]+\.py", TEXT))
    assert len(named) > 5
    assert all((scaling.DOCS.parent / path).exists() for path in named)
