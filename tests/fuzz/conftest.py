"""After `make fuzz`: the number of inputs, written where docs/RELIABILITY.md promises it."""

import datetime
import os
import time
from pathlib import Path

import pytest

from . import budget

BEGIN, END = "<!-- make fuzz: begin -->", "<!-- make fuzz: end -->"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    page = os.environ.get("FEATHERFED_FUZZ_REPORT")
    if page is None or exitstatus != 0:
        return
    lines = ["| target | inputs |", "|---|--:|"]
    lines += [f"| {target} | {number:,} |" for target, number in sorted(budget.counts.items())]
    lines.append(f"| **all** | **{sum(budget.counts.values()):,}** |")
    took_s = time.monotonic() - budget.began_s
    lines.append(f"\n{datetime.date.today()}: no failure in {took_s:.0f} s.")
    path = Path(page)
    before, found, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, closed, after = rest.partition(END)
    assert found and closed, f"{path} has no lines {BEGIN!r} and {END!r}"
    path.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")
