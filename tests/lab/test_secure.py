"""`python -m lab secure`: what masks cost, in a small size; bytes are exact, seconds are nobody's test."""

from pathlib import Path

import pytest

from featherfed.secure.circles import head_bytes
from lab.documents import fill
from lab.secure import Case, measure_bytes, tables
from lab.secure_work import measure_work

PAGE = Path(__file__).parents[2] / "docs" / "PRIVACY.md"
SMALL = Case(10, 10, 1, 0, "digits/tiny", "subspace(100) | grid(4)")


def test_masks_cost_what_the_page_says(tmp_path: Path) -> None:
    row = measure_bytes(SMALL)
    assert (row["summed"], row["points"]) == (10, head_bytes(10))
    # Of shares: t + 1 of 16 bytes, and the message around them.
    assert 7 * 16 < row["masks_up"] - row["points"] < 7 * 16 + 10
    assert row["first_up"] >= row["masks_up"]
    # Each phone gets the keys of nine others once.
    assert row["first_down"] - row["masks_down"] == pytest.approx(9 * 32, abs=9)
    # All that masks add is in the ledger, but for the headers of their messages.
    assert row["masks_up"] <= row["up"] - row["plain_up"] < row["masks_up"] + 15
    page = tmp_path / "PRIVACY.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    fill(page, tables({"bytes": [row]}))
    table = page.read_text(encoding="utf-8").partition("<!-- secure bytes: begin -->")[2]
    (line,) = (line for line in table.splitlines() if line.startswith("| 1 of 10 | 0 | `subspace(100)"))
    assert f" | {row['masks_up']:.0f} | 72 | " in line


def test_a_lost_phone_costs_the_others_a_seed() -> None:
    lost = measure_bytes(Case(10, 10, 1, 1, SMALL.problem, SMALL.uplink))
    assert lost["summed"] == 9
    assert lost["masks_up"] - measure_bytes(SMALL)["masks_up"] > 16


def test_the_measured_rounds_open_and_each_has_its_aim() -> None:
    rows = measure_work(1)
    assert len(rows) == 6
    assert all(row["ms"] > 0 for row in rows)
    assert sorted(row["aim_ms"] or 0 for row in rows) == [0, 0, 2, 2, 15, 15]
