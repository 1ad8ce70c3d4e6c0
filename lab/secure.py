"""`python -m lab secure`: what masks cost, in bytes by the ledger and in CPU time, beside the same rounds without them.

bytes   rounds in virtual time whose phones send noise: what masks need, both ways, and all that a phone sends beside
        what it sends where nothing is masked. A phone is lost by a quorum: the round goes on without those who would
        have come last.
work    CPU time of the server to open a round and of a phone to take part in one, in this process
sockets rounds without training on loopback, masked and not in turns
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from featherfed.fl_bench.codec_tables import markdown
from lab.documents import fill, kept_or_measured
from lab.long_work import long_work

PARTS = ("bytes", "work", "sockets")


@dataclass(frozen=True, slots=True)
class Case:
    """Rounds of `cohort` phones in circles of `circle`, of which `lost` are not in the sum."""

    cohort: int
    circle: int
    slices: int
    lost: int
    problem: str
    uplink: str


CASES = (
    Case(10, 10, 1, 0, "digits/tiny", "secure-small"),
    Case(10, 10, 1, 1, "digits/tiny", "secure-small"),
    Case(20, 20, 1, 0, "digits/tiny", "secure-small"),
    Case(20, 20, 1, 2, "digits/tiny", "secure-small"),
    Case(10, 10, 1, 0, "digits/lite", "secure-4bit"),
    Case(20, 20, 1, 0, "digits/lite", "secure-4bit"),
    Case(100, 10, 10, 0, "digits/lite", "secure-4bit"),
    Case(100, 10, 10, 10, "digits/lite", "secure-4bit"),
)
ROUNDS = 3
"""The first has the keys; figures are those of the last."""


def measure_bytes(case: Case) -> dict[str, Any]:
    """Return bytes of a phone in the sum and round, masked and not; keys are of the run's first round."""
    from featherfed.learning.models import layout_of

    masked, plain = (_rounds(case, secure=secure) for secure in (True, False))
    first, last = masked[0], masked[-1]
    summed = last["accepted"]
    return {
        "case": {name: getattr(case, name) for name in Case.__slots__},
        "summed": summed,
        "masks_up": (last["uplink"]["masks"] + last["uplink"]["points"]) / summed,
        "points": last["uplink"]["points"] / summed,
        "masks_down": last["downlink"]["masks"] / summed,
        "first_up": (first["uplink"]["masks"] + first["uplink"]["points"]) / first["accepted"],
        "first_down": first["downlink"]["masks"] / first["accepted"],
        "up": last["uplink"]["socket"] / summed,
        "plain_up": plain[-1]["uplink"]["socket"] / plain[-1]["accepted"],
        "bits": 8 * last["uplink"]["socket"] / summed / layout_of(case.problem).size,
    }


def _rounds(case: Case, *, secure: bool) -> list[dict[str, Any]]:
    """Return the rounds of the report of a run in virtual time."""
    from featherfed.fl_bench.cells import report_of, run_virtual
    from featherfed.fl_bench.scenario import Cell
    from featherfed.server.config import config_from

    config = config_from(
        {
            "problem": case.problem, "phones": case.cohort, "cohort": case.cohort, "circle": case.circle,
            "slices": case.slices, "uplink": case.uplink, "rounds": ROUNDS, "eval_every": ROUNDS, "heartbeat": 600.0,
            "quorum": case.cohort - case.lost if case.lost else 0, "secure": secure,
        }
    )  # fmt: skip
    cell = Cell({}, config, {"train": "none", "as": "virtual"})
    with tempfile.TemporaryDirectory(prefix="featherfed-secure-") as folder:
        run_virtual(cell, Path(folder), None)
        rounds: list[dict[str, Any]] = report_of(Path(folder) / cell.name)["rounds"]
    return rounds


def measure(parts: tuple[str, ...], *, small: bool) -> dict[str, Any]:
    """Return the figures of the parts; `small` ones are for tests."""
    from lab.secure_work import measure_sockets, measure_work
    from lab.training import machine

    result: dict[str, Any] = {"machine": machine()}
    cases = (CASES[:2] if small else CASES) if "bytes" in parts else ()
    with long_work(len(cases) + len({"work", "sockets"} & {*parts}), lines=True) as tell:
        if cases:
            result["bytes"] = []
        for case in cases:
            tell(f"{case.cohort} phones in circles of {case.circle}, {case.lost} lost, {case.uplink}")
            result["bytes"].append(measure_bytes(case))
        if "work" in parts:
            tell("work of the server and of a phone")
            result["work"] = measure_work(repeats=2 if small else 21)
        if "sockets" in parts:
            tell("rounds without training on sockets")
            result["sockets"] = measure_sockets(*((5, 2, 1) if small else (20, 12, 3)))
    return result


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the tables of docs/PRIVACY.md by their names."""
    made = {}
    if "bytes" in result:
        made["secure bytes"] = _bytes_table(result["bytes"])
    if "work" in result or "sockets" in result:
        made["secure work"] = _work_table(result)
    return made


def _bytes_table(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        case = row["case"]
        slices = f", {case['slices']} slices" if case["slices"] > 1 else ""
        cells.append(
            [
                f"{case['cohort'] // case['circle']} of {case['circle']}{slices}",
                str(case["lost"]),
                f"`{case['uplink']}`, `{case['problem'].partition('/')[2]}`",
                f"{row['masks_up']:.0f}",
                f"{row['points']:.0f}",
                f"{row['first_down']:.0f}",
                f"{row['masks_down']:.0f}",
                f"{row['up']:,.0f}",
                f"{row['up'] / row['plain_up']:.2f}",
                f"{row['bits']:.2f}",
            ]
        )
    return markdown(
        ["circles:", "lost", "uplink, model:", "masks up", "of these in the update", "masks down with keys", "later",
         "all up", "× unmasked", "bits a weight"],
        cells,
    )  # fmt: skip


def _work_table(result: dict[str, Any]) -> str:
    rows = []
    for row in result.get("work", ()):
        rows.append([row["what"], f"≤ {row['aim_ms']:g} ms" if row["aim_ms"] else "–", f"{row['ms']:.1f} ms"])
    if sockets := result.get("sockets"):
        rows.append(
            [
                f"a round of {sockets['phones']} phones on sockets without training, `lite`, `secure-4bit`"
                f" (unmasked: {sockets['plain_s']:.2f} s)",
                "< 0.3 s",
                f"{sockets['masked_s']:.2f} s",
            ]
        )
    load = max([*(row["load"] for row in result.get("work", ())), result.get("sockets", {}).get("load", 0.0)])
    made = markdown(["what:", "aim:", "measured, median:"], rows)
    about = result["machine"]
    return f"{made}\n\n{about['cpu']}, {about['cores']} cores, beside other work (load up to {load:.0f})."


@click.command
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Measure this only.  [default: all]")
@click.option("--small", is_flag=True, help="A size for tests.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--from", "kept", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take figures from this JSON in place of measuring.")  # fmt: skip
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill tables.")
def secure(parts: tuple[str, ...], small: bool, as_json: bool, kept: tuple[Path, ...], document: Path | None) -> None:
    """Measure what masks cost: bytes both ways by the ledger, CPU time, rounds on sockets."""
    from featherfed.errors import FeatherfedError

    try:
        result = kept_or_measured(kept, lambda: measure(parts or PARTS, small=small))
        made = tables(result)
        if document is not None:
            fill(document, made)
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=1) if as_json else "\n\n".join(made.values()))
