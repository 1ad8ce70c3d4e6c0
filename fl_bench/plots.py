"""The plots of a comparison: accuracy against bytes and against time, and where the bytes of a round went."""

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fl_bench.results import Strategy
from server.report import size

SHARES = ("payload", "framing", "resent", "wasted")
_COLORS = tuple(pyplot.get_cmap("tab20")(at) for at in (*range(0, 20, 2), *range(1, 20, 2)))


def as_svg(figure: Figure) -> str:
    """Return a figure as SVG text, and close it."""
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    content = text.getvalue()
    return content[content.index("<svg") :]


def share(traffic: dict[str, int], name: str) -> int:
    """Return one of `SHARES` of a round's traffic; they add up to the socket's bytes."""
    if name == "payload":
        return traffic["payload"] - traffic["resent"] - traffic["wasted"]
    if name == "framing":
        return traffic["socket"] - traffic["payload"]
    return traffic[name]


def accuracy_by_bytes(strategies: Sequence[Strategy]) -> Figure:
    """Return accuracy against bytes up, log axis; one line a seed, one colour a strategy."""

    def uplink(row: dict[str, Any], before: float) -> float:
        return before + float(row["uplink"]["socket"])

    figure = _accuracy(strategies, uplink, "bytes up, all phones, on the socket")
    axes = figure.axes[0]
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(round(value))))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    return figure


def accuracy_by_time(strategies: Sequence[Strategy]) -> Figure:
    """Return accuracy against emulated minutes."""

    def minutes(row: dict[str, Any], before: float) -> float:
        return before + float(row["seconds"]) / 60

    return _accuracy(strategies, minutes, "emulated minutes")


def _accuracy(strategies: Sequence[Strategy], advance: Callable[[dict[str, Any], float], float], label: str) -> Figure:
    figure, axes = pyplot.subplots(figsize=(7.2, 4.0))
    lowest = 100.0
    for number, strategy in enumerate(strategies):
        for seed, run in enumerate(strategy.runs):
            places, accuracies, place = [], [], 0.0
            for row in run.report["rounds"]:
                if row["seconds"] is None:
                    continue
                place = advance(row, place)
                if row["accuracy"] is not None:
                    places.append(place)
                    accuracies.append(100 * row["accuracy"])
            lowest = min([lowest, *accuracies[:1]])
            axes.plot(
                places, accuracies, color=_COLORS[number % len(_COLORS)], marker="o", markersize=2.5, linewidth=1.2,
                alpha=1 if seed == 0 else 0.45, label=_wrapped(strategy.name, 56) if seed == 0 else None,
            )  # fmt: skip
    # What is learned last costs most: the axis is of errors, so that 97 and 99 % lie apart.
    axes.set_yscale("function", functions=(_stretch, _shrink))
    ticks = [tick for tick in (0, 50, 80, 90, 95, 97, 98, 99, 99.5) if tick >= min(lowest, 90) - 30]
    axes.set_yticks(ticks, [f"{tick:g} %" for tick in ticks])
    axes.set_ylim(max(0.0, lowest - 5), 99.6)
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy on the test set")
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    columns = 1 if max(len(strategy.name) for strategy in strategies) > 40 else 2
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns)
    return figure


def _wrapped(name: str, width: int) -> str:
    """Return a strategy's name in lines of at most so many characters."""
    return textwrap.fill(name, width)


def _stretch(percent: Any) -> Any:
    return -np.log10(np.maximum(100.4 - np.asarray(percent, float), 1e-3))


def _shrink(place: Any) -> Any:
    return 100.4 - np.power(10.0, -np.asarray(place, float))


def bytes_bars(strategies: Sequence[Strategy]) -> Figure:
    """Return the mean bytes of a round, up and down, of each strategy's first seed, split in `SHARES`."""
    names = [_wrapped(strategy.name, 30) for strategy in strategies]
    figure, panels = pyplot.subplots(
        1, 2, figsize=(9.6, 1.1 + 0.45 * sum(name.count("\n") / 2 + 1 for name in names)), sharey=True
    )
    for axes, way in zip(panels, ("uplink", "downlink"), strict=True):
        left = [0.0] * len(strategies)
        for color, name in zip(_COLORS, SHARES, strict=False):
            widths = [
                sum(share(row[way], name) for row in strategy.runs[0].report["rounds"])
                / max(1, len(strategy.runs[0].report["rounds"]))
                for strategy in strategies
            ]
            axes.barh(names, widths, left=left, label=name, color=color, height=0.6)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for place, total in enumerate(left):
            axes.annotate(f" {size(round(total))}", (total, place), va="center", fontsize=8)
        axes.set_title(f"{way}, a round, all phones", fontsize=10)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(round(value))))
        axes.tick_params(axis="x", labelsize=8)
        axes.margins(x=0.18)
        axes.locator_params(axis="x", nbins=4)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", labelsize=9)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="lower center", ncols=len(SHARES))
    figure.tight_layout(rect=(0, 0.25 / figure.get_figheight(), 1, 1))
    return figure
