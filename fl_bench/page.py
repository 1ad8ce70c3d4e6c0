"""A run's report as one HTML page that needs nothing else: figures, plots, the table of its rounds."""

from collections.abc import Sequence
from typing import Any

import jinja2
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, MaxNLocator

from featherfed.fl_bench.plots import SHARE_NAMES, SHARES, accuracy_axis, as_svg, byte_axis, legend_below, share
from featherfed.fl_bench.terminal import duration
from featherfed.server.report import size

_TEMPLATE = jinja2.Environment(loader=jinja2.PackageLoader("featherfed.fl_bench"), autoescape=True)
_TEMPLATE.filters["size"] = size


def accuracy_plot(report: dict[str, Any], *, against: str) -> str:
    """Return accuracy `against` bytes up (log axis) or seconds, as SVG text."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    places, accuracies, total = [], [], 0.0
    for row in report["rounds"]:
        total += row["uplink"]["socket"] if against == "bytes" else row["seconds"] or 0.0
        if row["accuracy"] is not None:
            places.append(total)
            accuracies.append(100 * row["accuracy"])
    axes.plot(places, accuracies, color=SHARES["payload"], marker="o", markersize=4)
    accuracy_axis(axes, min(accuracies, default=90.0))
    if against == "bytes":
        byte_axis(axes)
    axes.set_xlabel("bytes up, all phones, on the socket" if against == "bytes" else "seconds of rounds")
    return as_svg(figure)


def bytes_plot(report: dict[str, Any]) -> str:
    """Return bars of bytes a round, up and down, split in payload, framing, re-sent and wasted, as SVG text."""
    figure, panels = pyplot.subplots(1, 2, figsize=(13.2, 3.4))
    for axes, way in zip(panels, ("uplink", "downlink"), strict=True):
        rounds = [row["round"] for row in report["rounds"]]
        base = [0] * len(rounds)
        for name, color in SHARES.items():
            heights = [share(row[way], name) for row in report["rounds"]]
            axes.bar(rounds, heights, bottom=base, label=SHARE_NAMES.get(name, name), color=color)
            base = [low + height for low, height in zip(base, heights, strict=True)]
        axes.set_title(f"{way}, all phones", loc="left")
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(round(value))))
        axes.grid(visible=True, axis="y")
    legend_below(figure, panels[0])
    return as_svg(figure)


def _tiles(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures that stand on top, each with what it is."""
    rounds, totals = report["rounds"], report["totals"]
    tiles = []
    best = max((row for row in rounds if row["accuracy"] is not None), key=lambda row: row["accuracy"], default=None)
    if best is not None:
        tiles.append((f"{best['accuracy']:.2%}", f"best accuracy, round {best['round']} of {len(rounds)}"))
    updates = sum(row["accepted"] for row in rounds)
    if updates:
        payload = sum(share(row["uplink"], "payload") for row in rounds) / updates
        times = 4 * report["parameters"] / payload if payload else 0.0
        tiles.append((size(round(payload)), f"an update: {times:.3g} × less than float32"))
    tiles += [
        (size(totals["uplink"]["socket"]), "up, all phones, on the socket"),
        (size(totals["downlink"]["socket"]), "down, all phones, on the socket"),
        (duration(sum(row["seconds"] or 0.0 for row in rounds)), f"of rounds, {updates} updates"),
    ]
    return tiles


def _reached(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each accuracy that was reached; its seconds are of rounds, as in the plot."""
    rows = []
    for target, there in report["to_accuracy"].items():
        if there is not None:
            seconds = sum(row["seconds"] or 0.0 for row in report["rounds"] if row["round"] <= there["round"])
            rows.append({**there, "target": f"{float(target):.0%}", "seconds": seconds})
    return rows


def run_page(report: dict[str, Any], commands: Sequence[str], config: str = "") -> str:
    """Return the page of one run, with the commands that repeat it and its configuration."""
    return _TEMPLATE.get_template("run.html").render(
        report=report,
        tiles=_tiles(report),
        reached=_reached(report),
        plots={
            "bytes": accuracy_plot(report, against="bytes"),
            "time": accuracy_plot(report, against="time"),
            "rounds": bytes_plot(report),
        },
        commands=commands,
        config=config,
    )
