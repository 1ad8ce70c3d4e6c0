"""The bytes-per-round report of a run: what its folder knows, as JSON, CSV and a table."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from featherfed.server.config import RunConfig
from featherfed.server.measures import LOSS, TARGETS, Measure, Measures, Target, figures
from featherfed.server.privacy_plan import delta_of, participations, privacy_of
from featherfed.server.storage.ledger import DIRECTIONS, FIELDS, Traffic
from featherfed.server.storage.privacy_rows import account, charged, privacy_by_round
from featherfed.server.storage.run_folder import RunFolder, write_durably
from featherfed.server.storage.spent import Spent, running, size
from featherfed.server.storage.store import Store

ACCURACY = "accuracy"


@dataclass(frozen=True, slots=True)
class Report:
    """`content` is what `fl-server report --json` prints; all byte counts are sums over phones."""

    content: dict[str, Any]

    def to_json(self) -> str:
        """Return the JSON text."""
        return json.dumps(self.content, indent=2)

    def to_csv(self) -> str:
        """Return the rounds as CSV, one column a figure: metrics by name, `uplink_socket`, …, `socket`, `handshake`."""
        text = io.StringIO()
        columns = [*_columns(self.measures), *(["epsilon"] if "privacy" in self.content else [])]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat(row, self.measures) for row in self.content["rounds"])
        return text.getvalue()

    @property
    def measures(self) -> Measures:
        """What the run's evaluations say."""
        return measures_in(self.content)


_PLAIN = ("round", "state", "cohort", "accepted", "late", "failed", "loss")
_TIMES = ("seconds", "ended_s")
BOTH_WAYS = ("socket", "handshake")
"""Sums of uplink and downlink, in rounds, totals and rows."""


def _columns(measures: Measures) -> list[str]:
    names = [each.name for each in measures if each != LOSS]
    return [*_PLAIN, *names, *_TIMES, *(f"{way}_{field}" for way in DIRECTIONS for field in FIELDS), *BOTH_WAYS]


def flat(row: dict[str, Any], measures: Measures) -> dict[str, Any]:
    """Return a round of a report as one row of plain values: None where the round has no value of a metric."""
    metrics = {each.name: row["metrics"].get(each.name) for each in measures if each != LOSS}
    traffic = {f"{way}_{field}": row[way][field] for way in DIRECTIONS for field in FIELDS}
    plain = {name: row[name] for name in (*_PLAIN, *_TIMES)}
    epsilon = {"epsilon": row["epsilon"]} if "epsilon" in row else {}
    return {**plain, **metrics, **traffic, **{name: row[name] for name in BOTH_WAYS}, **epsilon}


def measures_in(content: dict[str, Any]) -> Measures:
    """Return the measures that a report's content names."""
    return tuple(Measure(**each) for each in content["measures"])


def value_in(row: dict[str, Any], measure: Measure) -> float | None:
    """Return what a round of a report has of a measure; None where it was not evaluated, or is no number."""
    value: float | None = figures(row["loss"], row["metrics"]).get(measure.name)
    return value


def spent_until(rounds: Sequence[dict[str, Any]], measure: Measure, wanted: float) -> dict[str, Any] | None:
    """Return what a run had spent at the end of the first round that reached a value; None where none did.

    `seconds` are of the run's clock, from the server's start. Bytes are of all phones: `uplink_socket`,
    `downlink_socket`, their sum `socket`, and beside it `handshake` and `uplink_payload`.
    """
    payload = 0
    for row, spent in zip(rounds, running(map(Spent.in_row, rounds)), strict=True):
        payload += row["uplink"]["payload"]
        if measure.reaches(value_in(row, measure), wanted):
            return {
                "round": row["round"],
                "seconds": row["ended_s"],
                "uplink_payload": payload,
                **_ways(spent),
                **_both_ways(spent),
            }
    return None


def _ways(spent: Spent) -> dict[str, int]:
    return {"uplink_socket": spent.up, "downlink_socket": spent.down}


def _both_ways(spent: Spent) -> dict[str, int]:
    return {"socket": spent.both, "handshake": spent.handshakes}


def targets_of(measures: Measures, target: str = "") -> list[Target]:
    """Return the targets up to which a run's bytes are counted.

    Those are the run's own, and steps towards 1 where the first metric is a fraction of which more is better.
    """
    targets = {Target.parse(target)} if target else set()
    if measures and measures[0].fraction and measures[0].higher_is_better:
        targets |= {Target(measures[0].name, value) for value in TARGETS}
    return sorted(targets)


def make_report(folder: RunFolder, config: RunConfig, store: Store) -> Report:
    """Read a run's report from its store."""
    values = store.values()
    traffic: dict[int, dict[str, Traffic]] = {}
    for (number, _, way), entry in store.traffic().items():
        traffic.setdefault(number, {name: Traffic() for name in DIRECTIONS})[way].add(entry)
    accepted: dict[int, int] = {}
    for update in store.updates():
        if update.counts_in is not None:
            accepted[update.counts_in] = accepted.get(update.counts_in, 0) + 1
    measures, noted = store.measures(), privacy_by_round(store)
    rounds, totals = [], {way: Traffic() for way in DIRECTIONS}
    for row in store.rounds():
        of_round = traffic.get(row.round, {way: Traffic() for way in DIRECTIONS})
        for way in DIRECTIONS:
            totals[way].add(of_round[way])
        metrics = json.loads(row.metrics or "{}")
        rounds.append(
            {
                "round": row.round,
                "state": row.state,
                "cohort": len(json.loads(row.cohort)),
                "accepted": accepted.get(row.round, 0),
                "late": row.late or 0,
                "failed": row.failed or 0,
                "loss": row.loss,
                "metrics": metrics,
                # What most runs are asked for has a place that needs no knowledge of metrics.
                **({ACCURACY: metrics.get(ACCURACY)} if any(each.name == ACCURACY for each in measures) else {}),
                **({"epsilon": noted[row.round].epsilon if row.round in noted else None} if config.dp else {}),
                "seconds": row.seconds,
                "ended_s": None if row.seconds is None else row.started_s + row.seconds,
                **{way: of_round[way].as_dict() for way in DIRECTIONS},
                **_both_ways(Spent.of(of_round["uplink"], of_round["downlink"])),
            }
        )
    return Report(
        {
            "run": folder.path.name,
            "problem": config.problem,
            "parameters": int(values.get("parameters", 0)),
            "uplink": config.spelled("uplink"),
            "downlink": config.downlink,
            **({"gateways": config.gateways} if config.gateways else {}),
            **_privacy(config, noted, store),
            "measures": [asdict(each) for each in measures],
            "rounds": rounds,
            "totals": {
                **{way: totals[way].as_dict() for way in DIRECTIONS},
                **_both_ways(Spent.of(totals["uplink"], totals["downlink"])),
            },
            "to_target": {
                str(target): spent_until(rounds, target.measure(measures), target.value)
                for target in targets_of(measures, config.target if measures else "")
            },
        }
    )


def _privacy(config: RunConfig, noted: Mapping[int, Any], store: Store) -> dict[str, Any]:
    """Return how a run is differentially private, and what its account has come to; of any other run, nothing."""
    if not config.dp:
        return {}
    last = noted[max(noted)] if noted else None
    spent = last.epsilon if last else 0.0
    if charged(store, max(noted, default=0) + 1) and (plan := privacy_of(config)) is not None:
        # Sums of a round that is not closed could be opened.
        spent = plan.budget.epsilon(account(store))
    return {
        "privacy": {
            "kind": config.dp, "epsilon": spent,
            "delta": last.delta if last else delta_of(config), "target_epsilon": config.target_epsilon or None,
            "noise_multiplier": last.noise_multiplier if last else config.noise_multiplier or None,
            "clip_norm": config.clip_norm, "participations": participations(config),
        }
    }  # fmt: skip


def write_csv(folder: RunFolder, report: Report) -> None:
    """Write `rounds.csv` beside the run."""
    write_durably(folder.path / "rounds.csv", report.to_csv().encode())


WIDE_COLUMNS = 120
"""On a terminal that has fewer, theory, message bytes and payload down are left to `--json` and `rounds.csv`."""
MOST_METRICS = 3
"""So many are shown where they fit beside the bytes; a narrow terminal has the first alone."""
MOST_LETTERS = 12
_WIDE = tuple((way, field) for way in DIRECTIONS for field in ("theory", "payload", "message", "socket"))
_NARROW = (("uplink", "payload"), ("uplink", "socket"), ("downlink", "socket"))
_HEADS = {"uplink": "up", "downlink": "down"}


def table(report: Report, columns: int) -> Table:
    """Return the bytes-per-round table for people whose terminal has so many columns."""
    content = report.content
    wide = columns >= WIDE_COLUMNS
    fields = _WIDE if wide else _NARROW
    measures = [each for each in report.measures if each != LOSS] or list(report.measures)
    measures = measures[: 1 + max(0, min(MOST_METRICS - 1, (columns - WIDE_COLUMNS) // (MOST_LETTERS + 1)))]
    title = f"{content['run']}: {content['problem']}, {content['parameters']:,} parameters, up {content['uplink']}"
    result = Table(title=Text(f"{title}, down {content['downlink']}"), title_justify="left", box=SIMPLE_HEAD, padding=0)
    for name in ("round", "updates"):
        result.add_column(name, justify="right", no_wrap=True)
    for measure in measures:
        # Its name may be longer than the terminal is wide.
        result.add_column(escape(measure.name), justify="right", overflow="fold", max_width=MOST_LETTERS)
    result.add_column("seconds", justify="right", no_wrap=True)
    for way, field in fields:
        result.add_column(f"{_HEADS[way]}\n{field}", justify="right", no_wrap=True)
    private = "privacy" in content
    beside = ("resent", "wasted", *(["masks"] if _masks(content["totals"]) else []))
    for name in ("both\nsocket", *beside, *(["ε"] if private else [])):
        result.add_column(name, justify="right", no_wrap=True)
    for row in content["rounds"]:
        values = ["" if (value := value_in(row, each)) is None else each.text(value) for each in measures]
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.2f}"
        updates = f"{row['accepted']}/{row['cohort']}"
        epsilon = [f"{row['epsilon']:.3g}"] if private and row["epsilon"] is not None else []
        result.add_row(str(row["round"]), updates, *values, seconds, *_sizes(row, fields, beside), *epsilon)
    totals = content["totals"]
    result.add_section()
    result.add_row("total", "", *([""] * len(measures)), "", *_sizes(totals, fields, beside))
    result.caption = f"bytes, all {'gateways' if content.get('gateways') else 'phones'}: {Spent.in_row(totals)}"
    if private:
        privacy = content["privacy"]
        result.caption += f"\nε {privacy['epsilon']:.3g} for each phone, with δ {privacy['delta']:.3g}"
    result.caption_justify = "left"
    return result


def _sizes(row: dict[str, Any], fields: Sequence[tuple[str, str]], beside: Sequence[str]) -> list[str]:
    sums = {name: sum(row[way][name] for way in DIRECTIONS) for name in ("resent", "wasted")} | {"masks": _masks(row)}
    return [
        *(size(row[way][field]) for way, field in fields),
        size(row["socket"]),
        *(size(sums[name]) for name in beside),
    ]


def _masks(row: dict[str, Any]) -> int:
    """Return what masks have cost both ways."""
    return sum(row[way][field] for way in DIRECTIONS for field in ("masks", "points"))
