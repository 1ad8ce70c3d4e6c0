"""The bytes-per-round report of a run: what its folder knows, as JSON, CSV and a table."""

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from featherfed.server.config import RunConfig
from featherfed.server.ledger import DIRECTIONS, FIELDS, Traffic
from featherfed.server.run_folder import RunFolder, write_durably
from featherfed.server.store import Store

TARGETS = ("0.90", "0.95", "0.97", "0.98", "0.99")


@dataclass(frozen=True, slots=True)
class Report:
    """`content` is what `fl-server report --json` prints; all byte counts are sums over phones."""

    content: dict[str, Any]

    def to_json(self) -> str:
        """Return the JSON text."""
        return json.dumps(self.content, indent=2)

    def to_csv(self) -> str:
        """Return the rounds as CSV, one column a figure: `uplink_socket`, `downlink_payload`, …."""
        text = io.StringIO()
        plain = ("round", "state", "cohort", "accepted", "late", "failed", "loss", "accuracy", "seconds")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*plain, *(f"{way}_{field}" for way in DIRECTIONS for field in FIELDS)])
        for row in self.content["rounds"]:
            writer.writerow(
                [*(row[name] for name in plain), *(row[way][field] for way in DIRECTIONS for field in FIELDS)]
            )
        return text.getvalue()


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
    rounds, totals = [], {way: Traffic() for way in DIRECTIONS}
    to_accuracy: dict[str, Any] = dict.fromkeys(TARGETS)
    for row in store.rounds():
        of_round = traffic.get(row.round, {way: Traffic() for way in DIRECTIONS})
        for way in DIRECTIONS:
            totals[way].add(of_round[way])
        rounds.append(
            {
                "round": row.round,
                "state": row.state,
                "cohort": len(json.loads(row.cohort)),
                "accepted": accepted.get(row.round, 0),
                "late": row.late or 0,
                "failed": row.failed or 0,
                "loss": row.loss,
                "accuracy": row.accuracy,
                "metrics": json.loads(row.metrics or "{}"),
                "seconds": row.seconds,
                "ended_s": None if row.seconds is None else row.started_s + row.seconds,
                **{way: of_round[way].as_dict() for way in DIRECTIONS},
            }
        )
        for target in TARGETS:
            if to_accuracy[target] is None and row.accuracy is not None and row.accuracy >= float(target):
                to_accuracy[target] = {
                    "round": row.round,
                    "uplink_socket": totals["uplink"].socket,
                    "downlink_socket": totals["downlink"].socket,
                    "seconds": row.started_s + row.seconds,
                }
    return Report(
        {
            "run": folder.path.name,
            "problem": config.problem,
            "parameters": int(values.get("parameters", 0)),
            "uplink": config.uplink,
            "downlink": config.downlink,
            "measures": json.loads(values.get("measures", "[]")),
            "rounds": rounds,
            "totals": {way: totals[way].as_dict() for way in DIRECTIONS},
            "to_accuracy": to_accuracy,
        }
    )


def write_csv(folder: RunFolder, report: Report) -> None:
    """Write `rounds.csv` beside the run."""
    write_durably(folder.path / "rounds.csv", report.to_csv().encode())


WIDE_COLUMNS = 112
"""On a terminal that has fewer, theory and message bytes are left to `--json` and `rounds.csv`."""


def table(report: Report, columns: int) -> Table:
    """Return the bytes-per-round table for people whose terminal has so many columns."""
    content = report.content
    fields = ("theory", "payload", "message", "socket") if columns >= WIDE_COLUMNS else ("payload", "socket")
    title = f"{content['run']}: {content['problem']}, {content['parameters']:,} parameters, up {content['uplink']}"
    result = Table(title=f"{title}, down {content['downlink']}", title_justify="left", box=SIMPLE_HEAD, padding=0)
    for name in ("round", "updates", "accuracy", "seconds"):
        result.add_column(name, justify="right", no_wrap=True)
    for way in ("up", "down"):
        for field in fields:
            result.add_column(f"{way}\n{field}", justify="right", no_wrap=True)
    for name in ("resent", "wasted"):
        result.add_column(name, justify="right", no_wrap=True)
    for row in content["rounds"]:
        result.add_row(*_cells(row, str(row["round"]), f"{row['accepted']}/{row['cohort']}", fields))
    totals = content["totals"]
    result.add_section()
    result.add_row(*_cells({**totals, "accuracy": None, "seconds": None}, "total", "", fields))
    result.caption = (
        f"bytes, all phones; handshakes apart: {size(totals['uplink']['handshake'])} up,"
        f" {size(totals['downlink']['handshake'])} down"
    )
    result.caption_justify = "left"
    return result


def _cells(row: dict[str, Any], name: str, updates: str, fields: tuple[str, ...]) -> list[str]:
    accuracy, seconds = row["accuracy"], row["seconds"]
    return [
        name,
        updates,
        "" if accuracy is None else f"{accuracy:.2%}",
        "" if seconds is None else f"{seconds:.2f}",
        *(size(row[way][field]) for way in DIRECTIONS for field in fields),
        *(size(sum(row[way][field] for way in DIRECTIONS)) for field in ("resent", "wasted")),
    ]


def size(num_bytes: int) -> str:
    """Return a byte count in decimal units, as data plans count.

    >>> size(999), size(25_120), size(6_653_480)
    ('999 B', '25.1 kB', '6.65 MB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}" if num_bytes < 999.5 * scale else f"{num_bytes / scale:.0f} {unit}"
    return f"{num_bytes} B"
