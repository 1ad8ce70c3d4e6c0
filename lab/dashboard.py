"""`python -m lab dashboard`: what the live page costs a round.

The phones send noise over loopback without a link, so that a round is nothing but the server's work: where training and
links take their time, the page costs less. Runs with and without the page alternate, since a machine's speed drifts.
"""

import http.client
import json
import statistics
import tempfile
import threading
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from featherfed.errors import FeatherfedError
from featherfed.fl_bench.cells import report_of
from featherfed.fl_bench.processes import Processes

WARM_UP_ROUNDS = 20
"""Left out: the first rounds load models and open connections."""


def _read(url: str, name: str) -> None:
    """Be an open page: read its events until the server ends them."""
    try:
        with urllib.request.urlopen(f"{url}api/runs/{name}/events") as stream:
            while stream.read(1 << 16):
                pass
    except (OSError, http.client.HTTPException):
        return


@dataclass(frozen=True, slots=True)
class Cost:
    """What a round took in seconds, median, and what processor time of the server it took, mean."""

    round_s: float
    cpu_s: float


def run_once(runs: Path, name: str, phones: int, rounds: int, *, page: bool) -> Cost:
    """Run once, with the page open or without one."""
    pages: list[str] = []
    cpu_s: dict[int, float] = {}

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "listening" and page:
            pages.append(event["page"])
        # As a round closes, so that start, evaluation and end are left out.
        if event["event"] == "round_closed" and event["round_number"] in (WARM_UP_ROUNDS, rounds - 1):
            cpu_s[event["round_number"]] = processes.server_cpu_s()

    flags = ["--runs", str(runs), "--name", name, "--problem", "digits", "--phones", str(phones),
             "--cohort", str(phones), "--rounds", str(rounds), "--eval-every", str(rounds),
             "--uplink", "rotate | eden(1)",
             *(["--dashboard", "127.0.0.1:0"] if page else ["--no-dashboard"])]  # fmt: skip
    with Processes(runs / f"{name}.logs") as processes:
        address = processes.start_server(flags, tell)
        for url in pages:
            threading.Thread(target=_read, args=(url, name), daemon=True).start()
        swarm = ["--server", address, "--count", str(phones), "--train", "none", "--workers", "1"]
        processes.start_phone("swarm", swarm, "swarm")
        processes.wait_for_server()
    took = [row["seconds"] for row in report_of(runs / name)["rounds"]][WARM_UP_ROUNDS:]
    before, after = cpu_s[WARM_UP_ROUNDS], cpu_s[rounds - 1]
    return Cost(statistics.median(took), (after - before) / (rounds - 1 - WARM_UP_ROUNDS))


@click.command()
@click.option("--phones", default=20, show_default=True, type=click.IntRange(1), help="Phones, all in each cohort.")
@click.option("--rounds", default=300, show_default=True, type=click.IntRange(2 * WARM_UP_ROUNDS), help="Of each run.")
@click.option("--pairs", default=4, show_default=True, type=click.IntRange(1), help="Runs with and without the page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dashboard(phones: int, rounds: int, pairs: int, as_json: bool) -> None:
    """Measure what the live page, opened once, costs a round without training and links (Linux)."""
    costs: dict[bool, list[Cost]] = {False: [], True: []}
    try:
        with tempfile.TemporaryDirectory(prefix="featherfed-page-") as runs:
            for pair in range(pairs):
                # Which one goes first changes, too.
                for page in (False, True) if pair % 2 else (True, False):
                    name = f"{pair}-{'page' if page else 'bare'}"
                    cost = run_once(Path(runs), name, phones, rounds, page=page)
                    costs[page].append(cost)
                    click.echo(
                        f"{name}: {1000 * cost.round_s:.2f} ms a round, {1000 * cost.cpu_s:.2f} ms of processor time",
                        err=True,
                    )
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    bare, opened = (
        Cost(statistics.median(cost.round_s for cost in costs[page]), statistics.median(c.cpu_s for c in costs[page]))
        for page in (False, True)
    )
    if as_json:
        click.echo(json.dumps({"phones": phones, "rounds": rounds, "pairs": pairs, "bare": asdict(bare),
                               "page": asdict(opened)}, indent=2))  # fmt: skip
        return
    for what, without, with_it in (
        ("a round", bare.round_s, opened.round_s),
        ("server's processor time a round", bare.cpu_s, opened.cpu_s),
    ):
        click.echo(
            f"{what}: {1000 * without:.2f} ms without the page, {1000 * with_it:.2f} ms with it open,"
            f" {with_it / without - 1:+.1%}"
        )
    click.echo(f"medians of {pairs} pairs, {phones} phones, {rounds} rounds")
