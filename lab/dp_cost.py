"""`python -m lab dp-cost`: how much longer a round on sockets takes with `--dp`, beside the same rounds without it.

A server, and a swarm of phones in one process, on loopback: `central` over eden-1bit, `distributed` under masks over a
subspace and a grid. Runs with and without `--dp` take turns, so that what else the machine does is in both. Of each
turn there are two ratios: of the medians of the rounds' times, and of the processor time that server and phones
together spent on a round; a figure is the middle of the turns' ratios. The second is what is left where other work
takes turns too.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click

from featherfed.fl_bench.codec_tables import markdown
from lab.documents import fill, kept_or_measured

TABLE = "cost of noise"
PROBLEM = "digits/tiny"
NOISE = ("--noise-multiplier", "1", "--delta", "1e-3")
EPOCHS = 2
LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Case:
    """Rounds with noise of a kind, in which phones train or send noise; both sides have the flags `shared`."""

    dp: str
    trains: bool
    aim: float
    shared: tuple[str, ...]

    @property
    def name(self) -> str:
        """What is measured, for people."""
        return f"`{self.dp}`, {'with training' if self.trains else 'without training'}"


MASKED = ("--secure", "--uplink", "subspace(1184) | grid(10)")
CASES = tuple(
    Case(dp, trains, aim, (*shared, "--clip-norm", "0.5"))
    for dp, aim, shared in (("central", 0.05, ("--uplink", "eden-1bit")), ("distributed", 0.2, MASKED))
    for trains in (True, False)
)


def measure(
    *,
    phones: int,
    rounds: int,
    turns: int,
    cases: tuple[Case, ...] = CASES,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return a row for each case: seconds of a round with and without noise, and the ratio of each turn."""
    rows = []
    for case in cases:
        tell(case.name)
        found: dict[bool, list[_Spent]] = {True: [], False: []}
        for turn in range(turns):
            # Who goes first changes: what goes first finds a machine that has rested.
            for noised in (True, False) if turn % 2 else (False, True):
                found[noised].append(_rounds(case, phones, rounds, noised=noised))
        pairs = list(zip(found[True], found[False], strict=True))
        row: dict[str, Any] = {"what": case.name, "aim": case.aim}
        for name in ("round_s", "cpu_s"):
            ratios = [getattr(noised, name) / getattr(plain, name) for noised, plain in pairs]
            row[name] = {
                "with": median(getattr(noised, name) for noised, _ in pairs),
                "without": median(getattr(plain, name) for _, plain in pairs),
                "ratio": median(ratios), "least": min(ratios), "most": max(ratios),
            }  # fmt: skip
        rows.append(row)
    return {"phones": phones, "turns": turns, "rows": rows}


@dataclass(frozen=True, slots=True)
class _Spent:
    """What a round took: the median time of one, and the mean processor time of all processes."""

    round_s: float
    cpu_s: float


def _rounds(case: Case, phones: int, rounds: int, *, noised: bool) -> _Spent:
    from featherfed.fl_bench.cells import report_of
    from featherfed.fl_bench.processes import Processes
    from lab.memory import cpu_s, tree

    cpu: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="featherfed-dp-") as folder,
        Processes(Path(folder) / "logs") as started,
    ):

        def note(event: dict[str, Any]) -> None:
            if event["event"] == "round_closed":
                cpu.append(cpu_s(tree(started.server_pid) + tree(swarm.pid)))

        flags = {
            "--runs": folder, "--name": "run", "--problem": PROBLEM, "--phones": phones, "--cohort": phones,
            "--rounds": rounds + 2, "--eval-every": rounds + 2, "--epochs": EPOCHS,
        }  # fmt: skip
        given = [part for name, value in flags.items() for part in (name, str(value))]
        circle = ["--circle", str(phones)] if "--secure" in case.shared else []
        dp = ["--dp", case.dp, *NOISE] if noised else []
        address = started.start_server([*given, *case.shared, *circle, *dp, "--no-dashboard"], note)
        told = ["--server", address, "--problem", PROBLEM, "--count", str(phones), "--quiet"]
        swarm = started.start_phone("swarm", [*told, *([] if case.trains else ["--train", "none"])], "swarm")
        started.wait_for_server(LIMIT_S)
        rows = report_of(Path(folder) / "run")["rounds"]
    # The first has the joining, the last the evaluation.
    return _Spent(median(row["seconds"] for row in rows[1:-1]), (cpu[-2] - cpu[0]) / (len(cpu) - 2))


def table(result: dict[str, Any]) -> str:
    """Return the table of docs/DIFFERENTIAL_PRIVACY.md."""
    cells = [
        [
            row["what"],
            *(f"{1000 * row['cpu_s'][side]:.0f} ms" for side in ("without", "with")),
            *(_longer(row[name]) for name in ("cpu_s", "round_s")),
            f"≤ {100 * row['aim']:.0f} %",
        ]
        for row in result["rows"]
    ]
    made = markdown(["a round:", "processor time without `--dp`", "with", "more by", "longer by", "aim"], cells)
    about = (
        f"`{PROBLEM}`, {result['phones']} phones in one process that train {EPOCHS} epochs of all images together,"
        f" {result['turns']} runs of each side in turns, beside other work."
    )
    return f"{made}\n\n{about}"


def _longer(figures: dict[str, float]) -> str:
    ratio, least, most = (100 * (figures[name] - 1) for name in ("ratio", "least", "most"))
    return f"{ratio:+.1f} % ({least:+.1f} … {most:+.1f})"


@click.command
@click.option("--phones", default=20, show_default=True, help="All of whom a round asks.")
@click.option("--rounds", default=20, show_default=True, help="Of a run, that are measured.")
@click.option("--turns", default=5, show_default=True, help="Runs of each side.")
@click.option("--from", "kept", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take figures from this JSON in place of measuring.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def dp_cost(phones: int, rounds: int, turns: int, kept: tuple[Path, ...], as_json: bool, document: Path | None) -> None:
    """Measure how much longer a round on sockets takes with --dp, central and distributed."""
    from featherfed.errors import FeatherfedError

    try:
        result = kept_or_measured(
            kept,
            lambda: measure(phones=phones, rounds=rounds, turns=turns, tell=lambda line: click.echo(line, err=True)),
        )
        if document is not None:
            fill(document, {TABLE: table(result)})
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=1) if as_json else table(result))
