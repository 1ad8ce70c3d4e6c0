"""`fl-bench dashboard`: what the live page costs a round.

The phones send noise over loopback without a link, so that a round is nothing but the server's work: where training and
links take their time, the page costs less. Runs with and without the page alternate, since a machine's speed drifts.
"""

import json
import re
import statistics
import tempfile
import threading
import urllib.request
from pathlib import Path

import click

from featherfed.errors import FeatherfedError
from fl_bench.processes import Processes
from fl_bench.running import report_of

WARM_UP_ROUNDS = 20
"""Left out: the first rounds load models and open connections."""


def _read(url: str, name: str) -> None:
    """Be an open page: read its events until the server ends them."""
    try:
        with urllib.request.urlopen(f"{url}api/runs/{name}/events") as stream:
            while stream.read(1 << 16):
                pass
    except OSError:
        return


def round_seconds(runs: Path, name: str, phones: int, rounds: int, *, page: bool) -> list[float]:
    """Run once, with the page open or without one; return how long each round took."""
    lines: list[str] = []
    came = threading.Event()

    def tell(line: str) -> None:
        lines.append(line)
        came.set()

    flags = ["--runs", str(runs), "--name", name, "--data", "digits", "--phones", str(phones), "--cohort", str(phones),
             "--rounds", str(rounds), "--eval-every", str(rounds), "--uplink", "rotate | eden(1)",
             *(["--dashboard", "127.0.0.1:0"] if page else ["--no-dashboard"])]  # fmt: skip
    with Processes(runs / f"{name}.logs") as processes:
        address = processes.start_server(flags, tell)
        if page:
            came.wait()
            url = re.search(r"http://\S+", lines[0])
            assert url is not None, lines
            threading.Thread(target=_read, args=(url[0], name), daemon=True).start()
        swarm = ["--server", address, "--count", str(phones), "--train", "none", "--workers", "1"]
        processes.start_phone("swarm", swarm, "swarm")
        processes.wait_for_server()
    return [row["seconds"] for row in report_of(runs / name)["rounds"]][WARM_UP_ROUNDS:]


@click.command()
@click.option("--phones", default=20, show_default=True, type=click.IntRange(1), help="Phones, all in each cohort.")
@click.option("--rounds", default=300, show_default=True, type=click.IntRange(2 * WARM_UP_ROUNDS), help="Of each run.")
@click.option("--pairs", default=4, show_default=True, type=click.IntRange(1), help="Runs with and without the page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dashboard(phones: int, rounds: int, pairs: int, as_json: bool) -> None:
    """Measure what the live page, opened once, costs a round without training and links."""
    times: dict[bool, list[float]] = {False: [], True: []}
    shares: list[float] = []
    try:
        with tempfile.TemporaryDirectory(prefix="featherfed-page-") as runs:
            for pair in range(pairs):
                medians = {}
                # Which one goes first changes, too.
                for page in (False, True) if pair % 2 else (True, False):
                    name = f"{pair}-{'page' if page else 'bare'}"
                    took = round_seconds(Path(runs), name, phones, rounds, page=page)
                    times[page] += took
                    medians[page] = statistics.median(took)
                    click.echo(f"{name}: {1000 * medians[page]:.2f} ms a round", err=True)
                shares.append(medians[True] / medians[False] - 1)
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    bare, page_open = (statistics.median(times[page]) for page in (False, True))
    result = {"phones": phones, "rounds": rounds, "pairs": pairs, "bare_s": bare, "page_s": page_open,
              "cost": page_open / bare - 1, "cost_of_pairs": shares}  # fmt: skip
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"{phones} phones, {pairs} x {rounds} rounds: {1000 * bare:.2f} ms a round without the page,"
               f" {1000 * page_open:.2f} ms with it open: {result['cost']:+.1%}"
               f" (pairs: {', '.join(f'{share:+.1%}' for share in shares)})")  # fmt: skip
