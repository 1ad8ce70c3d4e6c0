"""A run's report as one HTML page that needs nothing else: figures, plots, the table of its rounds."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import jinja2
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, MaxNLocator

from featherfed.fl_bench.plots import (
    SHARE_NAMES,
    SHARES,
    WAYS,
    as_svg,
    byte_axis,
    legend_below,
    measure_axis,
    share,
    spent_in,
)
from featherfed.fl_bench.terminal import duration
from featherfed.server.measures import LOSS, Measure, Target
from featherfed.server.storage.report import measures_in, value_in
from featherfed.server.storage.spent import Spent, size

_TEMPLATE = jinja2.Environment(loader=jinja2.PackageLoader("featherfed.fl_bench"), autoescape=True)
_TEMPLATE.filters["size"] = size


def measure_plot(report: dict[str, Any], measure: Measure, *, against: str) -> str:
    """Return a measure `against` bytes (log axis: both ways, and up and down alone) or seconds, as SVG text."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    rows, values = report["rounds"], [value_in(row, measure) for row in report["rounds"]]
    if against == "bytes":
        lines = {name: spent_in(rows, bytes_of) for name, bytes_of in WAYS.items()}
    else:
        lines = {"": list(accumulate(row["seconds"] or 0.0 for row in rows))}
    for (name, places), dash in zip(lines.items(), ("solid", "dashed", "dotted"), strict=False):
        known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
        style: dict[str, Any] = {"color": SHARES["payload"], "marker": "o", "markersize": 4 if dash == "solid" else 2}
        axes.plot([x for x, _ in known], [y for _, y in known], linestyle=dash, label=name, **style)
    measure_axis(axes, measure, [value for value in values if value is not None])
    if against == "bytes":
        byte_axis(axes)
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("bytes, all phones, on the socket" if against == "bytes" else "seconds of rounds")
    return as_svg(figure)


def bytes_plot(report: dict[str, Any]) -> str:
    """Return bars of bytes a round, up and down, split in payload, framing, masks, re-sent and wasted, as SVG text."""
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
    for measure in measures_in(report)[:1]:
        values = [(value, row["round"]) for row in rounds if (value := value_in(row, measure)) is not None]
        if values:
            best, number = max(values, key=lambda each: measure.score(each[0]))
            tiles.append((measure.text(best), f"best {measure.name}, round {number} of {len(rounds)}"))
    if private := report.get("privacy"):
        target = private["target_epsilon"]
        about = f"the privacy of each phone, δ {private['delta']:.3g}{f', of at most {target:g}' if target else ''}"
        tiles.append((f"ε {private['epsilon']:.3g}", about))
    updates = sum(row["accepted"] for row in rounds)
    if updates:
        payload = sum(share(row["uplink"], "payload") for row in rounds) / updates
        times = 4 * report["parameters"] / payload if payload else 0.0
        tiles.append((size(round(payload)), f"an update: {times:.3g} × less than float32"))
    spent = Spent.in_row(totals)
    tiles += [
        (size(spent.both), f"both ways, all phones; {size(spent.handshakes)} of handshakes beside"),
        (size(spent.up), "up"),
        (size(spent.down), "down"),
        (duration(sum(row["seconds"] or 0.0 for row in rounds)), f"of rounds, {updates} updates"),
    ]
    return tiles


def _reached(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each target that was reached; its seconds are of rounds, as in the plot."""
    rows, measures = [], measures_in(report)
    for text, there in report["to_target"].items():
        if there is not None:
            target = Target.parse(text)
            label = f"{target.name} {target.measure(measures).short(target.value)}"
            seconds = sum(row["seconds"] or 0.0 for row in report["rounds"] if row["round"] <= there["round"])
            rows.append({**there, "target": label, "seconds": seconds})
    return rows


def run_page(report: dict[str, Any], commands: Sequence[str], config: str = "") -> str:
    """Return the page of one run, with the commands that repeat it and its configuration."""
    measures = measures_in(report)
    first = measures[0] if measures else None
    return _TEMPLATE.get_template("run.html").render(
        report=report,
        tiles=_tiles(report),
        reached=_reached(report),
        measure=first,
        metrics=[each for each in measures if each != LOSS],
        losses=LOSS in measures,
        value=value_in,
        plots={
            **(
                {against: measure_plot(report, first, against=against) for against in ("bytes", "time")}
                if first
                else {}
            ),
            "rounds": bytes_plot(report),
        },
        commands=commands,
        config=config,
    )
