"""The plots of a comparison: the first metric against bytes and against time, and where the bytes of a round went.

In a page their ink, their lines and their ground are the page's own (templates/style.css), so that they are dark where
it is; as PNG they are dark on white.
"""

import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from featherfed.fl_bench.results import Strategy
from featherfed.server.measures import Measure
from featherfed.server.storage.report import value_in
from featherfed.server.storage.spent import Spent, running, size

SHARES = {"payload": "#3b7dd8", "framing": "#e8a33d", "masks": "#3c9d7a", "resent": "#8e6bbf", "wasted": "#d2504b"}
"""What a round's bytes are, in colours that can be told apart on light and on dark ground."""
SHARE_NAMES = {"resent": "sent again"}
_COLORS = tuple(pyplot.get_cmap("tab20")(at) for at in (*range(0, 20, 2), *range(1, 20, 2)))
_INK = {"#1b1f24": "ink", "#5b6570": "soft", "#dde2e7": "line"}
"""Colours of no data, and the page's names for them."""
_BLACK, _GREY, _PALE = _INK
matplotlib.rcParams.update(
    {
        "text.color": _BLACK, "axes.labelcolor": _GREY, "axes.titlecolor": _BLACK, "axes.edgecolor": _GREY,
        "xtick.color": _GREY, "ytick.color": _GREY, "grid.color": _PALE, "font.size": 9, "axes.titlesize": 10,
        "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "featherfed",
    }
)  # fmt: skip


def as_svg(figure: Figure) -> str:
    """Return a figure as SVG text in the colours of the page that it will stand in, and close it."""
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    content = text.getvalue()
    for color, name in _INK.items():
        content = content.replace(color, f"var(--{name}, {color})")
    return content[content.index("<svg") :]


def save_png(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a figure as PNG, and close it: pyplot keeps those that nobody closes."""
    figure.savefig(path, dpi=dpi, bbox_inches="tight")
    pyplot.close(figure)


def share(traffic: dict[str, int], name: str) -> int:
    """Return one of `SHARES` of a round's traffic; they add up to the socket's bytes."""
    if name == "payload":
        return traffic["payload"] - traffic["resent"] - traffic["wasted"] - traffic["points"]
    if name == "framing":
        return traffic["socket"] - traffic["payload"] - traffic["masks"]
    if name == "masks":
        return traffic["masks"] + traffic["points"]
    return traffic[name]


def measure_by_bytes(strategies: Sequence[Strategy]) -> Figure:
    """Return the first metric against bytes both ways, and beside it against bytes up and down alone, log axes.

    Of each strategy there is the mean over its seeds, each seed pale.
    """
    figure, panels = pyplot.subplots(1, len(WAYS), figsize=(13.2, 4.0), sharex=True, sharey=True)
    for axes, (name, bytes_of) in zip(panels, WAYS.items(), strict=True):
        _draw(axes, strategies, partial(spent_in, bytes_of=bytes_of))
        axes.set_xlabel(f"bytes {name}, all phones, on the socket")
        axes.yaxis.label.set_visible(axes is panels[0])
    byte_axis(panels[0])
    handles, labels = panels[0].get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 90 else 2
    figure.legend(
        handles, labels, frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=columns
    )
    figure.tight_layout()
    return figure


WAYS: dict[str, Callable[[Spent], int]] = {
    "both ways": lambda spent: spent.both,
    "up": lambda spent: spent.up,
    "down": lambda spent: spent.down,
}
"""What a metric is drawn against, the sum first."""


def spent_in(rows: Sequence[dict[str, Any]], bytes_of: Callable[[Spent], int]) -> list[float]:
    """Return what had been spent at the end of each round of a report."""
    return [float(bytes_of(spent)) for spent in running(map(Spent.in_row, rows))]


def byte_axis(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, marked in bytes as people write them."""
    if not np.isfinite(axes.dataLim.x0):
        # A run without a round: there is nothing to take the logarithm of.
        return
    axes.set_xscale("log")
    lowest, highest = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5) if highest < 150 * lowest else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(round(value))))
    axes.xaxis.set_minor_formatter(NullFormatter())


def measure_axis(axes: Axes, measure: Measure, values: Iterable[float]) -> None:
    """Make the vertical axis one for a measure's values.

    Where it is a fraction of which more is better, like accuracy, it is one of errors, so that 97 and 99 % lie apart:
    what is learned last costs most.
    """
    axes.grid(visible=True)
    axes.set_ylabel(f"{_plain(measure.name)} on the test set")
    if not measure.fraction:
        return
    if not measure.higher_is_better:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        return
    lowest = 100 * min(values, default=0.9)
    axes.set_yscale("function", functions=(_stretch, _shrink))
    ticks = [tick for tick in (0, 50, 80, 90, 95, 97, 98, 99, 99.5) if tick >= min(lowest, 90) - 30]
    axes.set_yticks([tick / 100 for tick in ticks], [f"{tick:g} %" for tick in ticks])
    axes.set_ylim(max(0.0, lowest - 5) / 100, 0.996)


def _plain(text: str) -> str:
    """Return text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def measure_by_time(strategies: Sequence[Strategy]) -> Figure:
    """Return the first metric against the emulated minutes of rounds, as `measure_by_bytes` does."""
    figure, axes = pyplot.subplots(figsize=(13.2, 4.0))
    _draw(axes, strategies, lambda rows: list(accumulate((row["seconds"] or 0.0) / 60 for row in rows)))
    axes.set_xlabel("emulated minutes of rounds")
    columns = 1 if max(len(strategy.name) for strategy in strategies) > 90 else 2
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns)
    return figure


def _draw(
    axes: Axes, strategies: Sequence[Strategy], places: Callable[[Sequence[dict[str, Any]]], list[float]]
) -> None:
    """Draw a curve for each strategy, by the place that each round's end has on the horizontal axis."""
    measure = strategies[0].measures[0]
    values: list[float] = []
    for number, strategy in enumerate(strategies):
        color = _COLORS[number % len(_COLORS)]
        curves = []
        for run in strategy.runs:
            rows = [row for row in run.report["rounds"] if row["seconds"] is not None]
            known = zip(places(rows), (value_in(row, measure) for row in rows), strict=True)
            curves.append([(place, value) for place, value in known if value is not None])
        values += [value for curve in curves for _, value in curve[:1]]
        if len(curves) > 1:
            for curve in curves:
                axes.plot(*zip(*curve, strict=True), color=color, linewidth=0.8, alpha=0.35)
        # Rounds that all seeds have: a seed that reached its target ends.
        shared = list(zip(*curves, strict=False))
        mean = np.mean(shared, axis=1).T if shared else ((), ())  # (place and value, rounds)
        style: dict[str, Any] = {"color": color, "marker": "o", "markersize": 2.5, "linewidth": 1.5}
        axes.plot(*mean, label=_plain(textwrap.fill(strategy.name, 90)), **style)
    measure_axis(axes, measure, values)


def _stretch(share: Any) -> Any:
    return -np.log10(np.maximum(100.4 - 100 * np.asarray(share, float), 1e-3))


def _shrink(place: Any) -> Any:
    return (100.4 - np.power(10.0, -np.asarray(place, float))) / 100


def bytes_bars(strategies: Sequence[Strategy]) -> Figure:
    """Return what the bytes of a round are, up and down, as shares, and how many: means over rounds and seeds."""
    names = [_plain(textwrap.fill(strategy.name, 30)) for strategy in strategies]
    figure, panels = pyplot.subplots(
        1, 2, figsize=(13.2, 1.1 + 0.45 * sum(name.count("\n") / 2 + 1 for name in names)), sharey=True
    )
    for axes, way in zip(panels, ("uplink", "downlink"), strict=True):
        rows = [[row[way] for run in strategy.runs for row in run.report["rounds"]] for strategy in strategies]
        totals = [sum(traffic["socket"] for traffic in each) for each in rows]
        left = [0.0] * len(strategies)
        for name, color in SHARES.items():
            sums = [sum(share(traffic, name) for traffic in each) for each in rows]
            widths = [part / (total or 1) for part, total in zip(sums, totals, strict=True)]
            axes.barh(names, widths, left=left, label=SHARE_NAMES.get(name, name), color=color, height=0.6)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for place, (total, each) in enumerate(zip(totals, rows, strict=True)):
            axes.annotate(f" {size(round(total / max(1, len(each))))}", (1, place), va="center", fontsize=8)
        axes.set_title(f"{way}: bytes a round, all phones, and what they are", loc="left")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.tick_params(axis="x", labelsize=8)
        axes.set_xlim(0, 1.16)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    panels[0].invert_yaxis()
    legend_below(figure, panels[0])
    return figure


def legend_below(figure: Figure, axes: Axes) -> None:
    """Put one legend for all panels under them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="lower center", ncols=max(1, len(labels)))
    figure.tight_layout(rect=(0, 0.25 / figure.get_figheight(), 1, 1))
