"""The table of bytes and time to an accuracy, for a terminal, and figures as people read them."""

from collections.abc import Sequence

from rich.table import Table

from featherfed.fl_bench.results import Spread, Strategy, ratio
from featherfed.server.report import TARGETS, size


def table(strategies: Sequence[Strategy]) -> Table:
    """Return one row a strategy: best accuracy, then rounds, bytes and ratio to float32 for each target."""
    reached = [
        target
        for target in TARGETS
        if any(strategy.to_accuracy(target, "round").median is not None for strategy in strategies)
    ]
    result = Table(title="uplink of all phones to an accuracy: rounds, payload, socket bytes, × less than float32")
    result.add_column("strategy", overflow="fold")
    result.add_column("seeds", justify="right")
    result.add_column("best", justify="right")
    for target in reached:
        result.add_column(f"{float(target):.0%}", justify="right")
    for strategy in strategies:
        cells = [_cell(strategy, strategies, target) for target in reached]
        result.add_row(strategy.name, str(len(strategy.runs)), accuracy(strategy.best_accuracy()), *cells)
    result.caption = "medians over seeds; – where a seed did not reach it"
    return result


def _cell(strategy: Strategy, strategies: Sequence[Strategy], target: str) -> str:
    rounds = strategy.to_accuracy(target, "round").median
    payload = strategy.to_accuracy(target, "uplink_payload").median
    socket = strategy.to_accuracy(target, "uplink_socket").median
    if rounds is None or payload is None or socket is None:
        return "–"
    times = ratio(strategy, strategies, target)
    less = f"  {times:.3g}×" if times and abs(times - 1) > 1e-9 else ""
    return f"{rounds:g} r  {size(round(payload))} / {size(round(socket))}{less}"


def accuracy(spread: Spread) -> str:
    """Return an accuracy with its spread over seeds."""
    if spread.median is None or spread.least is None or spread.most is None:
        return "–"
    if spread.seeds == 1 or spread.least == spread.most:
        return f"{spread.median:.2%}"
    return f"{spread.median:.2%} ({100 * spread.least:.2f}–{100 * spread.most:.2f})"


def duration(seconds: float | None) -> str:
    """Return a duration as people read it.

    >>> duration(75.2), duration(7200), duration(None)
    ('75 s', '2.0 h', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 180:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
