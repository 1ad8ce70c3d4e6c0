"""A run's report as one HTML page that needs nothing else: a table and two plots."""

from typing import Any

import jinja2
from matplotlib import pyplot

from fl_bench.plots import SHARES, as_svg, share
from server.report import size

_TEMPLATE = jinja2.Environment(loader=jinja2.PackageLoader("fl_bench"), autoescape=True)
_TEMPLATE.filters["size"] = size


def accuracy_plot(reports: list[dict[str, Any]]) -> str:
    """Return accuracy against megabytes up, log axis, one line a run, as SVG text."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    for report in reports:
        megabytes, accuracies, total = [], [], 0
        for row in report["rounds"]:
            total += row["uplink"]["socket"]
            if row["accuracy"] is not None:
                megabytes.append(total / 1e6)
                accuracies.append(100 * row["accuracy"])
        axes.plot(megabytes, accuracies, marker="o", markersize=3, label=report["uplink"])
    axes.set_xscale("log")
    axes.set_xlabel("megabytes up, all phones, on the socket")
    axes.set_ylabel("test accuracy, %")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure)


def bytes_plot(report: dict[str, Any]) -> str:
    """Return bars of bytes a round, up and down, split in payload, framing, re-sent and wasted, as SVG text."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 3.2))
    for axes, way in zip(panels, ("uplink", "downlink"), strict=True):
        rounds = [row["round"] for row in report["rounds"]]
        base = [0.0] * len(rounds)
        for name in SHARES:
            heights = [share(row[way], name) / 1e3 for row in report["rounds"]]
            axes.bar(rounds, heights, bottom=base, label=name)
            base = [low + height for low, height in zip(base, heights, strict=True)]
        axes.set_title(way, fontsize=10)
        axes.set_xlabel("round")
        axes.set_ylabel("kB, all phones")
    panels[0].legend(frameon=False, fontsize=8)
    return as_svg(figure)


def run_page(report: dict[str, Any], command: str) -> str:
    """Return the page of one run, with the command that repeats it."""
    return _TEMPLATE.get_template("run.html").render(
        report=report, command=command, accuracy=accuracy_plot([report]), bytes=bytes_plot(report)
    )
