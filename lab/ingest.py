"""`python -m lab ingest`: how fast one server takes updates, and what an update and a phone cost it.

Real sockets on loopback. The phones (`ingest_phones`) have their tasks and models before the clock starts, then all
send at once: what is measured is receiving, checking, storing, folding and answering, and not the rounds around it. The
bare websockets library that echoes a message of the same size, from as many phones, is the measure: it and ours take
turns, and figures are medians of these.
"""

import base64
import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

import click

from featherfed.commandline.signals import kept_from_children
from lab.children import environment
from lab.profile import Profiler

os.environ.setdefault("OMP_NUM_THREADS", "1")

AT_ONCE = 32
"""Connections that are being opened: below the server's limit on strangers."""
DOWNLINK = "flat | topk(1/1000) | ternary"
"""Models travel before the clock starts; a small one shortens that."""
LEAST_TURNS = 3
ECHOES = 4
"""Messages that each phone has echoed in a turn: an echo is some four times as fast as an update."""


@functools.cache
def _payload(problem: str, spec: str) -> str:
    """Return a payload that is valid for any round and phone, in base64: noise, compressed."""
    from featherfed.codec.pipeline import Pipeline
    from featherfed.learning.models import layout_of
    from featherfed.learning.noise import noise_update
    from featherfed.randomness import RoundKey

    layout, key, pipeline = layout_of(problem), RoundKey(0, 1, 0), Pipeline.parse(spec)
    made = pipeline.encode(noise_update(pipeline.space(layout, key).size, key), layout, key).payload
    return base64.b64encode(made).decode()


class _Child:
    """A process that is told and tells by lines of JSON."""

    def __init__(self, module: str, order: dict[str, Any]) -> None:
        # It ends with its standard input; Ctrl-C in a terminal is for the bench alone.
        with kept_from_children():
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment(),
            )
        self.tell(order)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def tell(self, what: dict[str, Any]) -> None:
        """Write one line."""
        assert self._process.stdin is not None, "it was asked for"
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Read one line; raises `LocalError` where there is none, or a child says that it failed."""
        from featherfed.errors import LocalError

        assert self._process.stdout is not None, "it was asked for"
        line = self._process.stdout.readline()
        heard: dict[str, Any] = json.loads(line) if line else {"error": "a process of the bench ended early"}
        if "error" in heard:
            raise LocalError(f"ingest failed: {heard['error']}")
        return heard

    def ask(self, **what: Any) -> dict[str, Any]:
        """Tell, then hear."""
        self.tell(what)
        return self.hear()


def _phones(
    stack: ExitStack, order: dict[str, Any], phones: int, processes: int, *, shards: int | None = None
) -> list[_Child]:
    """Start the processes of so many phones, which connect; `shards` of the run, where there are more of those."""
    children = []
    for number in range(processes):
        first, end = number * phones // processes, (number + 1) * phones // processes
        share = {
            **order, "host": "127.0.0.1", "phones": shards or phones, "first": first, "count": end - first,
            "at_once": max(1, AT_ONCE // processes),
        }  # fmt: skip
        children.append(stack.enter_context(_Child("lab.ingest_phones", share)))
    return children


def _together(children: Sequence[_Child]) -> list[dict[str, Any]]:
    return [child.hear() for child in children]


def _clocked(server: _Child, children: Sequence[_Child], order: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Give all children the same order; return seconds until all are done, and what the server used meanwhile.

    `peak_before` is the most memory that it had since it was asked last, `done` what the children said.
    """
    from time import perf_counter

    before = server.ask()
    began_s = perf_counter()
    for child in children:
        child.tell(order)
    done = _together(children)
    elapsed_s = perf_counter() - began_s
    return elapsed_s, {**server.ask(), "peak_before": before["peak"], "done": done}


class _Echo:
    """A bare websockets server that echoes, and its phones."""

    def __init__(self, stack: ExitStack, phones: int, num_bytes: int, processes: int) -> None:
        self._server = stack.enter_context(_Child("lab.ingest_server", {"echo": True}))
        order = {"port": self._server.hear()["port"], "echo_bytes": num_bytes}
        self._phones, self._children = phones, _phones(stack, order, phones, processes)
        _together(self._children)
        self._per_s: list[float] = []
        self._cpu_ms: list[float] = []

    def turn(self, messages: int) -> None:
        """Have so many messages echoed."""
        each = max(1, messages // self._phones)
        elapsed_s, used = _clocked(self._server, self._children, {"echo": each})
        self._per_s.append(each * self._phones / elapsed_s)
        self._cpu_ms.append(1e3 * used["cpu_s"] / (each * self._phones))

    def row(self) -> dict[str, Any]:
        """Return the medians of the turns: messages a second, and the server's CPU time for each."""
        return {"messages_per_s": median(self._per_s), "cpu_ms": median(self._cpu_ms), "turns": len(self._per_s)}


class _Ours:
    """A run's server and its phones; a turn is a round: between turns it has nothing to do."""

    def __init__(
        self,
        stack: ExitStack,
        settings: dict[str, Any],
        rounds: int,
        processes: int,
        *,
        durable: bool,
        data_dir: str | None,
        folder: Path | None,
        profile: bool = False,
        within_s: float = 0.0,
    ) -> None:
        self._phones, self._rounds, self._durable = settings["phones"], rounds, durable
        # One evaluation, for the peak: those of other rounds would be in the CPU time. A profile is of updates alone.
        evaluated = {"eval_every": rounds + 1 if profile else max(1, rounds - 1)}
        order = {
            "settings": {**settings, "cohort": self._phones, "rounds": rounds + 1, "heartbeat": 60.0, **evaluated},
            "durable": durable, "data_dir": data_dir, "folder": str(folder) if folder else None,
        }  # fmt: skip
        self._server = server = stack.enter_context(_Child("lab.ingest_server", order))
        port = server.hear()["port"]
        self._at_rest = server.ask()["rss"]
        share = {"port": port, "payload": _payload(settings["problem"], settings["uplink"])}
        self._children = _phones(stack, share, self._phones, processes)
        self.payload_bytes = _together(self._children)[0]["payload_bytes"]
        for child in self._children:
            child.tell({"rounds": rounds, "within_s": within_s})
        _together(self._children)  # armed
        self._connected = server.ask()["rss"]
        self._profiler = Profiler(server.pid) if profile else None
        self._took_s: list[float] = []
        self._used: list[dict[str, Any]] = []

    def turn(self) -> None:
        """Take the updates of a round; return when the next one's phones are ready, which is not in its time."""
        elapsed_s, used = _clocked(self._server, self._children, {})
        self._took_s.append(elapsed_s)
        self._used.append(used)
        if len(self._took_s) < self._rounds:
            _together(self._children)

    def row(self) -> dict[str, Any]:
        """Return the figures of the turns: medians of them, but for memory and the longest wait."""
        took_s, used = median(self._took_s), self._used
        said = [child for turn in used for child in turn["done"]]
        return {
            "profile": self._profiler.stop() if self._profiler else {},
            "durable": self._durable,
            "phones": self._phones,
            "updates": len(used) * self._phones,
            "payload_bytes": self.payload_bytes,
            "updates_per_s": self._phones / took_s,
            "taken_s": took_s,
            "wait_p50_s": median(child["wait_p50_s"] for child in said),
            "wait_most_s": max(child["wait_most_s"] for child in said),
            "payload_mb_per_s": self._phones * self.payload_bytes / took_s / 1e6,
            "cpu_ms_per_update": 1e3 * median(turn["cpu_s"] for turn in used) / self._phones,
            "lag_p50_ms": median(turn["lag_p50_ms"] for turn in used),
            "lag_p99_ms": median(turn["lag_p99_ms"] for turn in used),
            "rss_at_rest": self._at_rest,
            "rss_connected": self._connected,
            # The close and the evaluation of the round before are in it, though not in the time.
            "rss_peak": max(max(turn["peak"], turn["peak_before"]) for turn in used),
        }


def measure_server(
    settings: dict[str, Any],
    updates: int,
    processes: int,
    *,
    durable: bool,
    data_dir: str | None,
    folder: Path | None,
    profile: bool = False,
    within_s: float = 0.0,
) -> dict[str, Any]:
    """Return updates a second, the server's CPU time for each, its memory and its loop's lag.

    The phones of a round answer one after the other `within_s` seconds; 0: all at once. `taken_s` is when the last one
    had its Accepted, the median of the rounds, and `wait_most_s` the longest that any waited for it.

    With `profile` the server is sampled meanwhile, which slows it: for its shares, and for nothing else.
    """
    rounds = max(1, round(updates / settings["phones"]))
    with ExitStack() as stack:
        ours = _Ours(
            stack, settings, rounds, processes, durable=durable, data_dir=data_dir, folder=folder, profile=profile,
            within_s=within_s,
        )  # fmt: skip
        for _ in range(rounds):
            ours.turn()
        return ours.row()


def measure_beside(
    settings: dict[str, Any],
    updates: int,
    processes: int,
    *,
    data_dir: str | None,
    folder: Path | None,
    within_s: float = 0.0,
    echoes: int = ECHOES,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what `measure_server` does of a durable server and of one in memory, and the figures of a bare echo.

    All are there at once and take turns, a round each, and `echoes` messages of the same size for each phone: what
    else the machine does meets all of them. Figures are medians of the turns.
    """
    rounds = max(LEAST_TURNS, round(updates / settings["phones"]))
    with ExitStack() as stack:
        ours = [
            _Ours(stack, settings, rounds, processes, durable=durable, data_dir=data_dir, folder=folder,
                  within_s=within_s)
            for durable in (True, False)
        ]  # fmt: skip
        echo = _Echo(stack, settings["phones"], ours[0].payload_bytes, processes)
        for _ in range(rounds):
            for server in ours:
                server.turn()
                echo.turn(echoes * settings["phones"])
        return [server.row() for server in ours], echo.row()


def measure_idle(settings: dict[str, Any], *, data_dir: str | None, processes: int) -> dict[str, Any]:
    """Return what a connected phone that waits for its first round costs in resident memory."""
    phones = settings["phones"]
    order = {
        # One more than will come: the first round never opens.
        "settings": {**settings, "phones": phones + 1, "cohort": 1, "rounds": 1, "heartbeat": 60.0},
        "durable": True, "data_dir": data_dir, "folder": None,
    }  # fmt: skip
    with ExitStack() as stack:
        server = stack.enter_context(_Child("lab.ingest_server", order))
        port = server.hear()["port"]
        rest = server.ask()
        share = {"port": port, "payload": _payload(settings["problem"], settings["uplink"])}
        children = _phones(stack, share, phones, processes, shards=phones + 1)
        _together(children)
        there = server.ask()
    return {
        "phones": phones,
        "rss_at_rest": rest["rss"],
        "rss_connected": there["rss"],
        "bytes_per_phone": (there["rss"] - rest["rss"]) / phones,
        "cpu_ms_per_join": 1e3 * there["cpu_s"] / phones,
    }


@click.command()
@click.option("--phones", default=100, show_default=True, type=click.IntRange(1), help="Connections.")
@click.option("--updates", default=2000, show_default=True, type=click.IntRange(1), help="In all, in equal rounds.")
@click.option("--problem", default="digits/lite", show_default=True, help="Whose updates.")
@click.option("--spec", default="rotate | eden(1)", show_default=True, help="How updates are compressed.")
@click.option(
    "--within",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Over how long the phones of a round answer, one after the other; 0: all at once.",
)
@click.option("--idle", type=click.IntRange(1), help="Measure the memory of so many idle phones too.")
@click.option(
    "--decode", type=click.IntRange(1), metavar="N", help="Measure decoding alone too, by 1 to N threads in turns."
)
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1), help="To play the phones in.")
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Whose disk is written.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ingest(
    phones: int,
    updates: int,
    problem: str,
    spec: str,
    within: float,
    idle: int | None,
    decode: int | None,
    processes: int,
    data_dir: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Measure how fast one server takes updates, durable and not, beside a bare websockets echo server."""
    from featherfed.errors import ConfigError, FeatherfedError
    from featherfed.server.config import config_from
    from featherfed.server.serving import check
    from lab.decode import measure as measure_decode
    from lab.training import machine

    settings = {"problem": problem, "phones": phones, "uplink": spec, "downlink": DOWNLINK}
    try:
        check(config_from({**settings, "cohort": phones}), data_dir)
        rows, echo = measure_beside(settings, updates, processes, data_dir=data_dir, folder=folder, within_s=within)
        result: dict[str, Any] = {
            "machine": machine(),
            "problem": problem,
            "spec": spec,
            "phones": phones,
            "ingest": rows,
        }
        result["echo"] = echo
        if decode:
            result["decode"] = measure_decode(problem, spec, decode, 5)
        if idle:
            result["idle"] = measure_idle({**settings, "phones": idle}, data_dir=data_dir, processes=processes)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(result, indent=1))
        return
    for row in rows:
        click.echo(
            f"{'durable' if row['durable'] else 'in memory':>10}  {row['updates_per_s']:8.0f} updates/s"
            f"  {row['payload_mb_per_s']:7.2f} MB/s  {row['cpu_ms_per_update']:6.2f} ms of CPU each"
            f"  a round in {row['taken_s']:.2f} s, {1e3 * row['wait_p50_s']:.0f} ms from update to answer,"
            f" {1e3 * row['wait_most_s']:.0f} at most"
            f"  lag p50 {row['lag_p50_ms']:.1f} p99 {row['lag_p99_ms']:.1f} ms"
            f"  RSS {row['rss_at_rest'] / 1e6:.0f} MB at rest, {row['rss_connected'] / 1e6:.0f} connected,"
            f" {row['rss_peak'] / 1e6:.0f} peak"
        )
    click.echo(f"{'echo':>10}  {echo['messages_per_s']:8.0f} messages/s{'':18}{echo['cpu_ms']:6.2f} ms of CPU each")
    if decode:
        alone = result["decode"]
        for way, counts in alone["us"].items():
            for count, us in counts.items():
                cpu_us = alone["cpu_us"][way][count]
                click.echo(f"decoded by {count} threads, {way}: {us:.0f} µs an update, {cpu_us:.0f} µs of CPU")
    if idle:
        row = result["idle"]
        click.echo(f"{row['phones']} idle phones: {row['bytes_per_phone'] / 1024:.1f} KiB each")
