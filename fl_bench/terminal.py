"""The table of bytes and time to a target, for a terminal, and figures as people read them."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from featherfed.fl_bench.results import Strategy, by_bytes, label, ratio, reached_among, targets_among
from featherfed.server.measures import Target
from featherfed.server.storage.spent import size


def table(strategies: Sequence[Strategy], asked: Sequence[Target] = ()) -> Table:
    """Return one row a strategy, the least bytes both ways to the last target first.

    A row has its best and its handshakes, then rounds, bytes and ratio to float32 for each target.
    """
    reached = reached_among(strategies, targets_among(strategies, asked))
    result = Table(title="bytes of all phones to a target: rounds, both ways, × less than float32, and below up + down")
    result.add_column("strategy", overflow="fold")
    private = any(strategy.epsilon is not None for strategy in strategies)
    fixed = ("seeds", "best", *(["ε"] if private else []), "handshakes")
    for name in (*fixed, *(escape(label(target, strategies)) for target in reached)):
        result.add_column(name, justify="right")
    for strategy in by_bytes(strategies, reached[-1]) if reached else strategies:
        told = [str(len(strategy.runs)), strategy.best_text(), *([epsilon_text(strategy)] if private else [])]
        told.append(bytes_text(strategy.whole("handshake").median))
        cells = [_cell(strategy, strategies, target) for target in reached]
        result.add_row(escape(strategy.name), *told, *cells)
    result.caption = (
        "medians of each figure over seeds, – where one did not reach it; handshakes: of whole runs, in no sum"
    )
    return result


def _cell(strategy: Strategy, strategies: Sequence[Strategy], target: Target) -> str:
    rounds = strategy.to_target(target, "round").median
    if rounds is None:
        return "–"
    up, down, both = (
        bytes_text(strategy.to_target(target, name).median) for name in ("uplink_socket", "downlink_socket", "socket")
    )
    times = ratio(strategy, strategies, target)
    less = f"  {times:.3g}×" if times and abs(times - 1) > 1e-9 else ""
    return f"{rounds:g} r  {both}{less}\n{up} + {down}"


def epsilon_text(strategy: Strategy) -> str:
    """Return what the accounts of a strategy's runs have come to at most, – where they have none."""
    return "–" if strategy.epsilon is None else f"{strategy.epsilon:.3g}"


def bytes_text(value: float | None) -> str:
    """Return a byte count as people read it, – where there is none."""
    return "–" if value is None else size(value)


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
