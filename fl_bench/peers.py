"""`fl-bench peers`: rounds without training in featherfed and in Flower: one machine, one model, as many phones.

Each system runs in a network namespace of its own, where nothing else uses the loopback: bytes are the kernel's count
of what it carried, from before the phones start to the end of the run, handshakes, polls and logs included. Memory is
the highest proportional set size of the processes and all their children. Seconds are the median of the rounds.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click

from fl_bench.documents import fill, markdown

LIMIT_S = 600.0


def loopback_bytes() -> int:
    """Return what this namespace's loopback has carried."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == "lo":
            return int(figures.split()[0])
    return 0


class _Peak:
    """The highest memory of some processes' trees, looked at until it is stopped."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids, self.bytes, self._over = pids, 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        from fl_bench.memory import proportional_bytes, tree

        while not self._over.wait(0.25):
            members = {member for pid in self._pids() for member in tree(pid)}
            self.bytes = max(self.bytes, proportional_bytes(list(members)))

    def stop(self) -> int:
        """Return the peak."""
        self._over.set()
        self._thread.join()
        return self.bytes


def _featherfed(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    from fl_bench.processes import Processes
    from fl_bench.running import report_of

    phones = str(order["phones"])
    with Processes(folder / "logs") as processes:
        began_s, connected_s = time.monotonic(), 0.0

        def tell(line: str) -> None:
            nonlocal connected_s
            if f"{phones}/{phones} connected" in line:
                connected_s = time.monotonic() - began_s

        flags = ["--runs", str(folder), "--name", "run", "--data", "digits", "--model", order["model"], "--phones",
                 phones, "--cohort", phones, "--rounds", str(order["rounds"]), "--eval-every", str(order["rounds"]),
                 "--uplink", order["uplink"], "--downlink", order["downlink"]]  # fmt: skip
        address = processes.start_server(flags, tell)
        before, started = loopback_bytes(), []
        server = _Peak(lambda: [processes.server_pid])
        if order["swarm"]:
            flags = ["--server", address, "--train", "none", "--count", phones, "--quiet"]
            started.append(processes.start_phone("swarm", flags, "swarm").pid)
        else:
            for number in range(order["phones"]):
                flags = ["--server", address, "--train", "none", "--name", f"phone-{number}"]
                started.append(processes.start_phone(f"phone-{number}", flags).pid)
        peak = _Peak(lambda: started)
        processes.wait_for_server(LIMIT_S)
        carried, of_phones, of_server = loopback_bytes() - before, peak.stop(), server.stop()
    seconds = [row["seconds"] for row in report_of(folder / "run")["rounds"]]
    # The last round has the evaluation, which Flower is not asked for.
    return _figures(order, seconds[:-1] or seconds, carried, of_phones, of_server, connected_s)


def _flower(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    from featherfed.learning.names import LAYOUTS
    from fl_bench.flower import Flower

    flower = Flower(Path(order["flower"]), folder)
    try:
        began_s = time.monotonic()
        link = flower.start_server()
        before = loopback_bytes()
        nodes = [flower.start_phone(number) for number in range(order["phones"])]
        server, peak = _Peak(lambda: [link.pid]), _Peak(lambda: [node.pid for node in nodes])
        run = flower.start_run(LAYOUTS[order["model"]].size, order["phones"], order["rounds"])
        run.wait(LIMIT_S)
        spent_s = time.monotonic() - began_s
        carried, of_phones, of_server = loopback_bytes() - before, peak.stop(), server.stop()
        seconds = flower.round_seconds()
    finally:
        flower.stop()
    return _figures(order, seconds, carried, of_phones, of_server, spent_s - sum(seconds))


def _figures(
    order: dict[str, Any], seconds: list[float], carried: int, of_phones: int, of_server: int, start_s: float
) -> dict[str, Any]:
    return {
        "system": order["name"],
        "round_s": median(seconds),
        "bytes_per_phone_round": carried / (order["phones"] * order["rounds"]),
        "phone_bytes": of_phones / order["phones"],
        "server_bytes": of_server,
        "start_s": start_s,
    }


def compare(model: str, phones: int, rounds: int, flower: Path, flower_rounds: int) -> dict[str, Any]:
    """Return the figures of each system; raises `ConfigError` where there can be no namespace, or no Flower."""
    from featherfed.errors import ConfigError, LocalError
    from fl_bench.flower import PROGRAMS

    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        raise ConfigError("peers counts bytes in network namespaces: it needs root, unshare and ip (iproute2)")
    if not (flower / PROGRAMS[0]).exists():
        raise ConfigError(f"{flower} has no {PROGRAMS[0]}: pip install flwr, and name its bin folder with --flower")
    plain = {"model": model, "phones": phones, "rounds": rounds}
    spec = {"uplink": "rotate | eden(1)", "downlink": "rotate | eden(1)"}
    orders = [
        {**plain, "name": "featherfed, float32, a process a phone", "uplink": "float32", "downlink": "float32",
         "swarm": False},
        {**plain, "name": "featherfed, float32, a swarm", "uplink": "float32", "downlink": "float32", "swarm": True},
        {**plain, "name": "featherfed, one bit both ways, a swarm", **spec, "swarm": True},
        {**plain, "name": "Flower", "rounds": flower_rounds, "flower": str(flower.resolve())},
    ]  # fmt: skip
    rows = []
    for order in orders:
        script = 'ip link set lo up && exec "$0" -m fl_bench.peers "$1"'
        command = ["unshare", "--net", "sh", "-c", script, sys.executable, json.dumps(order)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * LIMIT_S)
        if done.returncode:
            raise LocalError(f"{order['name']}: {done.stderr.strip()[-400:]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return {"model": model, "phones": phones, "rounds": rounds, "flower_rounds": flower_rounds, "systems": rows}


def table(result: dict[str, Any]) -> str:
    """Return the systems side by side; × is how many times Flower's figure is the system's."""
    flower = result["systems"][-1]
    rows = []
    for row in result["systems"]:
        cells = [row["system"]]
        for key, scale, form in (
            ("round_s", 1.0, ".3f"),
            ("bytes_per_phone_round", 1e3, ".1f"),
            ("phone_bytes", 1e6, ".1f"),
            ("server_bytes", 1e6, ".0f"),
            ("start_s", 1.0, ".1f"),
        ):
            cells.append(f"{row[key] / scale:{form}} ({flower[key] / row[key]:.1f} ×)")  # fmt: skip
        rows.append(cells)
    return markdown(
        ["system:", "s a round", "kB a phone-round", "MB a phone", "MB the server", "s to start"],
        rows,
    )


@click.command()
@click.option("--model", default="lite", show_default=True, help="Whose size: mlp, 2nn, cnn or lite.")
@click.option("--phones", default=10, show_default=True, type=click.IntRange(1), help="All of them in every round.")
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(2), help="Of featherfed.")
@click.option("--flower-rounds", default=3, show_default=True, type=click.IntRange(1), help="Of Flower.")
@click.option(
    "--flower", type=click.Path(path_type=Path), help="Folder of Flower's commands.  [default: this Python's]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--from", "kept", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take the figures from this JSON in place of measuring.")  # fmt: skip
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def peers(
    model: str,
    phones: int,
    rounds: int,
    flower_rounds: int,
    flower: Path | None,
    as_json: bool,
    kept: Path | None,
    document: Path | None,
) -> None:
    """Run rounds without training in featherfed and in Flower, side by side."""
    from featherfed.errors import ConfigError, FeatherfedError
    from featherfed.learning.names import LAYOUTS

    if model not in LAYOUTS:
        raise click.UsageError(f"unknown model {model!r}; there are {', '.join(LAYOUTS)}")
    try:
        programs = flower or Path(sys.executable).parent
        result = json.loads(kept.read_text()) if kept else compare(model, phones, rounds, programs, flower_rounds)
        if document is not None:
            fill(document, {"peers": table(result)})
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=1) if as_json else table(result))


def _main() -> None:
    order = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="featherfed-peers-") as folder:
        side = _flower if "flower" in order else _featherfed
        print(json.dumps(side(order, Path(folder))), flush=True)


if __name__ == "__main__":
    _main()
