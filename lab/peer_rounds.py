"""The part `rounds` of `python -m lab peers`: whole simulated rounds, evaluation included, in four systems.

All have one model, the same first weights, shards and cohorts; batches are drawn by each in its own way, so accuracies
differ by what chance gives, and by more only where a system does other work than it should. Seconds are the median of
a run's rounds but the first, in which a peer compiles; runs take turns.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from featherfed.errors import LocalError
from featherfed.fl_bench.codec_tables import markdown
from lab.orders import Figures, Order

MODELS = ("2nn", "lite", "cnn")
LR = 0.05
WORKERS = 2
AGREE = 0.01
"""So far accuracies of one model may lie apart; ten rounds of `2nn` with other batches differ by some 0.003."""
FLOAT32 = {"uplink": "float32", "downlink": "float32"}
OURS, DEFAULT = f"featherfed, float32, {WORKERS} workers", f"featherfed, default codecs, {WORKERS} workers"
"""What others are compared with."""


def orders(model: str, order: Callable[..., Order], programs: Mapping[str, str]) -> list[Order]:
    """Return a model's runs; `order` gives one by its name, its way and what it has of its own."""
    workers = {"workers": WORKERS}
    made = [
        order("featherfed, float32, 1 worker", "ours", workers=1, **FLOAT32),
        order(OURS, "ours", **workers, **FLOAT32),
        *([order(DEFAULT, "ours", **workers)] if model == "2nn" else []),
        order("a plain loop in PyTorch, one thread", "plain"),
        order("pfl-research, 1 process", "pfl", programs=programs["pfl"]),
        order(f"pfl-research, {WORKERS} processes", "pfl", programs=programs["pfl"], **workers),
        order("FedJAX", "fedjax", programs=programs["fedjax"]),
    ]
    return [replace(each, problem=f"{each.problem.partition('/')[0]}/{model}") for each in made]


def medians(turns: list[Figures]) -> Figures:
    """Return the figures of one order's runs: medians, of memory the highest; their accuracies are one figure."""
    middle = {
        name: statistics.median(getattr(figures, name) for figures in turns) for name in ("round_s", "cpu_s", "start_s")
    }
    return replace(turns[0], **middle, all_bytes=max(figures.all_bytes for figures in turns))


def agreed(model: str, rows: list[Figures]) -> None:
    """Raise `LocalError` where accuracies of one model lie further apart than `AGREE`."""
    known: dict[str, float] = {}
    for row in rows:
        if row.accuracy is None or not 0 <= row.accuracy <= 1:
            raise LocalError(f"{model}: the accuracy of {row.name} is {row.accuracy}, and nothing compares with that")
        known[row.name] = row.accuracy
    least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    if known[most] - known[least] > AGREE:
        raise LocalError(
            f"{model}: {most} comes to an accuracy of {known[most]:.4f} and {least} to {known[least]:.4f}, more than"
            f" {AGREE} apart: they did not do the same work, and their seconds do not compare"
        )


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of docs/PERFORMANCE.md."""
    return markdown(
        ["model:", "system:", "s a round", f"÷ ours, float32, {WORKERS} workers", "÷ ours, default codecs",
         "CPU s a round", "MB all processes", "s to start", "accuracy"],
        list(_cells(rows)),
    )  # fmt: skip


def _cells(rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    seconds = {(row["model"], row["name"]): row["round_s"] for row in rows}
    for row in rows:
        beside = [seconds.get((row["model"], name)) for name in (OURS, DEFAULT)]
        yield [
            f"`{row['model']}`", row["name"], f"{row['round_s']:.3f}",
            *("–" if ours is None else f"{row['round_s'] / ours:.2f}" for ours in beside),
            f"{row['cpu_s']:.2f}", f"{row['all_bytes'] / 1e6:.0f}", f"{row['start_s']:.1f}", f"{row['accuracy']:.4f}",
        ]  # fmt: skip
