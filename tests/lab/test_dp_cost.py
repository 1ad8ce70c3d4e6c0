"""What noise costs a round on sockets: one small case, and its table."""

import pytest

from lab.documents import fill
from lab.dp_cost import CASES, TABLE, measure, table

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")


@pytest.mark.processes
def test_rounds_with_and_without_noise_take_turns_on_sockets(tmp_path) -> None:  # type: ignore[no-untyped-def]
    quick = next(case for case in CASES if case.dp == "distributed" and not case.trains)
    found = measure(phones=5, rounds=1, turns=1, cases=(quick,))
    (row,) = found["rows"]
    for name in ("round_s", "cpu_s"):
        figures = row[name]
        assert figures["with"] > 0 and figures["ratio"] == pytest.approx(figures["with"] / figures["without"])
    page = tmp_path / "page.md"
    page.write_text(f"<!-- {TABLE}: begin -->\n<!-- {TABLE}: end -->\n")
    fill(page, {TABLE: table(found)})
    assert "| `distributed`, without training |" in page.read_text() and "≤ 20 %" in page.read_text()


def test_all_kinds_of_noise_are_measured_with_training_and_without() -> None:
    assert [(case.dp, case.trains, case.aim) for case in CASES] == [
        ("central", True, 0.05), ("central", False, 0.05), ("distributed", True, 0.2), ("distributed", False, 0.2),
    ]  # fmt: skip
