"""After `make fuzz`: the number of inputs, written where docs/RELIABILITY.md promises it."""

import datetime
import os
import time
from pathlib import Path

import pytest

from featherfed.fl_bench.codec_tables import markdown
from lab.documents import fill

from . import budget


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    page = os.environ.get("FEATHERFED_FUZZ_REPORT")
    if page is None or exitstatus != 0:
        return
    rows = [[target, f"{number:,}"] for target, number in sorted(budget.counts.items())]
    table = markdown(["target:", "inputs"], [*rows, ["**all**", f"**{sum(budget.counts.values()):,}**"]])
    took_s = time.monotonic() - budget.began_s
    fill(Path(page), {"make fuzz": f"{table}\n\n{datetime.date.today()}: no failure in {took_s:.0f} s."})
