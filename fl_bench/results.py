"""Results of grids and runs as plain data: cells grouped into strategies over seeds, bytes and time to a target.

Bytes are those of `server/storage/spent.py`: up, down, both ways, and handshakes beside them.

A strategy is what cells have in common when their seed is left out. Figures of a strategy are medians over its seeds,
with the least and the most beside them; a target that some seeds missed has no median.
"""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featherfed.errors import ConfigError
from featherfed.fl_bench.cells import DONE, FACTS, report_of
from featherfed.fl_bench.differences import phone_text
from featherfed.fl_bench.scenario import PHONE_KEYS, SCENARIO, read_scenario
from featherfed.server.config import KNOWN, RunConfig
from featherfed.server.measures import Measures, Target
from featherfed.server.storage.ledger import DIRECTIONS
from featherfed.server.storage.report import BOTH_WAYS, flat, measures_in, spent_until, targets_of, value_in
from featherfed.server.storage.run_folder import existing

BASELINE = "float32"


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run: its folder, its configuration, its report, and what its scenario varied."""

    path: Path
    config: RunConfig
    report: dict[str, Any]
    facts: dict[str, Any]

    @property
    def virtual(self) -> bool:
        """Whether it ran in virtual time."""
        return bool(self.facts.get("way") == "virtual")


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over seeds: median, least, most, of how many seeds, and the mean; all None where a seed has none."""

    median: float | None
    least: float | None
    most: float | None
    seeds: int
    mean: float | None = None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Spread":
        """Return the spread of one value a seed."""
        known = [value for value in values if value is not None]
        if len(known) < len(values) or not known:
            return cls(None, None, None, len(values))
        return cls(statistics.median(known), min(known), max(known), len(values), statistics.fmean(known))


@dataclass(frozen=True, slots=True)
class Strategy:
    """Runs that differ in their seed alone."""

    name: str
    runs: tuple[Run, ...]

    @property
    def config(self) -> RunConfig:
        """The configuration, with the first seed's."""
        return self.runs[0].config

    @property
    def measures(self) -> Measures:
        """What its evaluations say, the first before all; none where its problem has no test set."""
        return measures_in(self.runs[0].report)

    def best(self) -> Spread:
        """Return the best value that each seed reached of the first measure."""
        return Spread.of([_best(run.report) for run in self.runs])

    def best_text(self) -> str:
        """Return that for people, with its spread over seeds."""
        spread = self.best()
        if spread.median is None or spread.least is None or spread.most is None:
            return "–"
        show = self.measures[0].text
        if spread.seeds == 1 or spread.least == spread.most:
            return show(spread.median)
        return f"{show(spread.median)} ({show(spread.least).removesuffix('%')}–{show(spread.most).removesuffix('%')})"

    @property
    def epsilon(self) -> float | None:
        """What the run of the largest account has come to; None where a run has no differential privacy."""
        accounts = [run.report.get("privacy") for run in self.runs]
        return None if None in accounts else max(account["epsilon"] for account in accounts if account)

    @property
    def delta(self) -> float | None:
        """The δ of that."""
        return None if self.epsilon is None else float(self.runs[0].report["privacy"]["delta"])

    def whole(self, figure: str) -> Spread:
        """Return one of `FIGURES` of whole runs; seconds are of rounds."""
        return Spread.of([_whole(run.report)[figure] for run in self.runs])

    def each(self, target: Target, figure: str) -> list[float | None]:
        """Return one of `FIGURES` at the end of the first round that reached a target, seed by seed."""
        return [_at(run.report, target).get(figure) for run in self.runs]

    def to_target(self, target: Target, figure: str) -> Spread:
        """Return that over seeds."""
        return Spread.of(self.each(target, figure))


FIGURES = {
    "round": "rounds",
    "socket": "bytes both ways",
    "uplink_socket": "bytes up",
    "downlink_socket": "bytes down",
    "handshake": "bytes of handshakes",
    "uplink_payload": "payload up",
    "seconds": "seconds",
}
"""What is known of a run up to a target: bytes are those of `spent_until`."""


def _best(report: dict[str, Any]) -> float | None:
    measures = measures_in(report)
    values = [value_in(row, measures[0]) for row in report["rounds"]] if measures else []
    return max(
        (value for value in values if value is not None), key=lambda value: measures[0].score(value), default=None
    )


def _whole(report: dict[str, Any]) -> dict[str, float]:
    totals = report["totals"]
    return {
        "round": len(report["rounds"]),
        "seconds": sum(row["seconds"] or 0.0 for row in report["rounds"]),
        **{f"{way}_{name}": totals[way][name] for way in DIRECTIONS for name in ("payload", "socket")},
        **{name: totals[name] for name in BOTH_WAYS},
    }


def _at(report: dict[str, Any], target: Target) -> dict[str, float]:
    """Return what a run had used when it reached the target, nothing if it did not."""
    measure = next((each for each in measures_in(report) if each.name == target.name), None)
    return (spent_until(report["rounds"], measure, target.value) if measure else None) or {}


def read_runs(paths: Iterable[Path]) -> list[Strategy]:
    """Return the strategies found in folders of grids and runs, in the order of their folders.

    Raises `ConfigError` for a folder without a finished run.
    """
    runs: list[Run] = []
    for path in paths:
        found = [_read(folder) for folder in _folders(path)]
        if not found:
            known = "give one of fl-bench run, fl-server serve or simulate(folder=…)"
            raise ConfigError(f"{path} holds no finished run: {known}")
        runs += found
    return _group(runs)


def _folders(path: Path) -> list[Path]:
    if (path / "run.sqlite").exists():
        return [path]
    folders = sorted(marker.parent for marker in path.rglob(DONE) if (marker.parent / "run.sqlite").exists())
    order = _written_order(path)
    return sorted(folders, key=lambda folder: order.get(folder.name, len(order)))


def _written_order(path: Path) -> dict[str, int]:
    """Return the place of each cell in the grid's scenario, empty where there is none."""
    scenario = path / SCENARIO
    if not scenario.exists():
        return {}
    return {cell.name: place for place, cell in enumerate(read_scenario(scenario))}


def _read(folder: Path) -> Run:
    facts = json.loads((folder / FACTS).read_text()) if (folder / FACTS).exists() else {}
    _, config = existing(folder)
    return Run(folder, config, report_of(folder), facts)


def _group(runs: Sequence[Run]) -> list[Strategy]:
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        settings = tuple(str(run.config.spelled(name)) for name in KNOWN if name != "seed")
        phones = json.dumps(run.facts.get("phones", {}), sort_keys=True)
        groups.setdefault((str(run.path.parent), phones, settings, _parameters(run)), []).append(run)
    members = [sorted(group, key=lambda run: run.config.seed) for group in groups.values()]
    return [Strategy(name, tuple(group)) for name, group in zip(_names(members), members, strict=True)]


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Name each group by what tells it from the others: its uplink, and whatever else differs."""
    configs = [group[0].config for group in groups]
    differing = [
        name
        for name in KNOWN
        if name not in ("seed", "uplink") and len({str(config.spelled(name)) for config in configs}) > 1
    ]
    phones = [group[0].facts.get("phones", {}) for group in groups]
    keys = [key for key in PHONE_KEYS if len({str(each.get(key)) for each in phones}) > 1]
    # How long a run may go on says nothing of how it goes, unless nothing else tells two strategies apart.
    telling = [name for name in differing if name not in ("rounds", "target")]
    names = _spelled(configs, phones, telling, keys)
    if len(set(names)) < len(names):
        names = _spelled(configs, phones, differing, keys)
    if len(set(names)) < len(names):
        # One problem, whose model was another before an edit of its file, or in an earlier release.
        sizes = [_parameters(group[0]) for group in groups]
        if len(set(sizes)) > 1:
            names = [f"{name}, parameters={size}" for name, size in zip(names, sizes, strict=True)]
    if len(set(names)) < len(names):
        # The same run in several folders, as before and after a change of the code.
        names = [f"{name}, {group[0].path.parent}" for name, group in zip(names, groups, strict=True)]
    return names


def _parameters(run: Run) -> int:
    return int(run.report.get("parameters", 0))


def _spelled(
    configs: Sequence[RunConfig], phones: Sequence[dict[str, Any]], settings: Sequence[str], keys: Sequence[str]
) -> list[str]:
    names = []
    for config, told in zip(configs, phones, strict=True):
        parts = [f"{name}={config.spelled(name)}" for name in settings]
        names.append(", ".join([config.spelled("uplink"), *parts, *(f"{key}={_told(key, told)}" for key in keys)]))
    return names


def _told(key: str, phones: dict[str, Any]) -> str:
    return phone_text(key, phones[key]) if key in phones else "–"


def baseline_of(strategy: Strategy, strategies: Sequence[Strategy]) -> Strategy | None:
    """Return the strategy that differs from this one in its uplink alone and sends float32; None without one."""
    same = [name for name in KNOWN if name not in ("seed", "uplink", "rounds")]
    for other in strategies:
        if other.config.spelled("uplink") == BASELINE and all(
            other.config.spelled(name) == strategy.config.spelled(name) for name in same
        ):
            return other
    return None


def targets_among(strategies: Sequence[Strategy], asked: Sequence[Target] = ()) -> list[Target]:
    """Return the targets of a comparison: those asked for, or those of the strategies' own reports.

    Raises `ConfigError` for one of a metric that none of them has.
    """
    known = list({measure: None for strategy in strategies for measure in strategy.measures})
    for target in asked:
        target.measure(known)
    own = {each for strategy in strategies for each in targets_of(strategy.measures, strategy.config.target)}
    return sorted({*asked} or own)


def reached_among(strategies: Sequence[Strategy], targets: Sequence[Target]) -> list[Target]:
    """Return the targets that some strategy reached with all of its seeds."""
    return [each for each in targets if any(one.to_target(each, "round").median is not None for one in strategies)]


def label(target: Target, strategies: Sequence[Strategy]) -> str:
    """Return a target for people: `accuracy 97%`."""
    measure = target.measure([measure for strategy in strategies for measure in strategy.measures])
    return f"{target.name} {measure.short(target.value)}"


def ratio(strategy: Strategy, strategies: Sequence[Strategy], target: Target, figure: str = "socket") -> float | None:
    """Return how many times less than with float32 uplinks a target cost, by medians of bytes both ways."""
    base = baseline_of(strategy, strategies)
    mine = strategy.to_target(target, figure).median
    theirs = base.to_target(target, figure).median if base else None
    return theirs / mine if mine and theirs else None


def by_bytes(strategies: Sequence[Strategy], target: Target) -> list[Strategy]:
    """Return strategies by what a target cost them both ways, the least first, those that missed it last."""
    costs = {id(each): each.to_target(target, "socket").median for each in strategies}
    return sorted(strategies, key=lambda each: math.inf if (cost := costs[id(each)]) is None else cost)


def as_json(strategies: Sequence[Strategy], asked: Sequence[Target] = ()) -> list[dict[str, Any]]:
    """Return all figures of all strategies, ready for JSON."""
    result = []
    among = targets_among(strategies, asked)
    for strategy in strategies:
        targets = {
            str(target): {
                **{figure: asdict(strategy.to_target(target, figure)) for figure in FIGURES},
                "times_less_than_float32": ratio(strategy, strategies, target),
            }
            for target in among
        }
        result.append(
            {
                "strategy": strategy.name,
                "uplink": strategy.config.spelled("uplink"),
                "downlink": strategy.config.downlink,
                "problem": strategy.config.problem,
                "seeds": [run.config.seed for run in strategy.runs],
                "measures": [asdict(each) for each in strategy.measures],
                "best": asdict(strategy.best()),
                **({} if strategy.epsilon is None else {"epsilon": strategy.epsilon, "delta": strategy.delta}),
                "to_target": targets,
                "command": strategy.config.command(),
            }
        )
    return result


def round_rows(strategies: Sequence[Strategy]) -> list[dict[str, Any]]:
    """Return one flat row for each round of each run, for data frames."""
    rows = []
    measures = tuple({each: None for strategy in strategies for each in strategy.measures})
    private = any("privacy" in run.report for strategy in strategies for run in strategy.runs)
    for strategy in strategies:
        for run in strategy.runs:
            for row in run.report["rounds"]:
                cells = flat(row, measures)
                if private:
                    # All rows have the same columns, also of runs that are not private.
                    cells["epsilon"] = row.get("epsilon")
                rows.append({"strategy": strategy.name, "seed": run.config.seed, "run": str(run.path), **cells})
    return rows
