"""`python -m lab swarm`: how long a swarm takes until all of its phones could train, and what it needs in memory."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from featherfed.fl_bench.processes import Processes
from lab.memory import proportional_bytes, tree


def measure(count: int, problem: str, data_dir: str | None, workers: int | None, limit_s: float) -> Any:
    """Return seconds until all phones are ready, and the bytes of the swarm's processes, shared ones once."""
    from featherfed.errors import LocalError

    where = ["--data-dir", data_dir] if data_dir else []
    with tempfile.TemporaryDirectory(prefix="featherfed-swarm-") as folder:
        logs = Path(folder) / "logs"
        with Processes(logs) as processes:
            # One more than will come: no round begins.
            flags = ["--runs", folder, "--problem", problem, "--phones", str(count + 1), *where]
            address = processes.start_server(flags, lambda event: None)
            began_s = time.perf_counter()
            flags = ["--server", address, "--problem", problem, "--count", str(count), *where]
            swarm = processes.start_phone("swarm", [*flags, *(["--workers", str(workers)] if workers else [])], "swarm")
            log = logs / "swarm.log"
            while (ready := log.read_text().count(": ready with ")) < count:
                if swarm.poll() is not None or time.perf_counter() - began_s > limit_s:
                    raise LocalError(f"{ready} of {count} phones were ready: {log.read_text()[-300:]}")
                time.sleep(0.05)
            ready_s = time.perf_counter() - began_s
            members = tree(swarm.pid)
            return {
                "phones": count,
                "problem": problem,
                "ready_s": round(ready_s, 2),
                "processes": len(members),
                "bytes": proportional_bytes(members),
                "bytes_per_phone": proportional_bytes(members) / count,
            }


@click.command()
@click.option("--count", default=200, show_default=True, type=click.IntRange(1), help="How many phones.")
@click.option("--problem", default="mnist/lite", show_default=True, help="What they train.")
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--workers", type=click.IntRange(1), help="Processes of the swarm.  [default: cores]")
@click.option("--limit", default=120.0, show_default=True, help="Seconds after which to give up.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def swarm(count: int, problem: str, data_dir: str | None, workers: int | None, limit: float, as_json: bool) -> None:
    """Measure how long a swarm of phones takes to be ready to train, and its memory."""
    from featherfed.errors import ConfigError, FeatherfedError
    from lab.training import machine

    try:
        row = measure(count, problem, data_dir, workers, limit)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"machine": machine(), "swarm": row}, indent=1))
        return
    click.echo(
        f"{count} phones with {problem} were ready in {row['ready_s']:.1f} s; {row['processes']} processes"
        f" have {row['bytes'] / 1e6:.0f} MB, {row['bytes_per_phone'] / 1e6:.1f} MB a phone"
    )
