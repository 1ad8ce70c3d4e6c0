"""What was skipped, at the end of a run: a line for each thing that this machine lacks, and how to get it."""

from collections import Counter
from collections.abc import Iterable

import pytest


def summary(reasons: Iterable[str]) -> list[str]:
    """Return a line for each reason with how many tests it kept from running, the most frequent first.

    >>> summary(["Skipped: needs node: make web", "there is no GPU", "needs node: make web"])
    ['2 × needs node: make web', '1 × there is no GPU']
    """
    counted = Counter(reason.removeprefix("Skipped: ") for reason in reasons)
    return [f"{count} × {reason}" for reason, count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print it."""
    skipped = terminalreporter.stats.get("skipped", [])
    # A report's place, line and reason; of a whole module as of a test.
    lines = summary(report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple))
    if lines:
        terminalreporter.section(f"{len(skipped)} skipped on this machine", sep="-")
        for line in lines:
            terminalreporter.write_line(line)
