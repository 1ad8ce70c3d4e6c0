"""One row of `python -m lab peers`: a run of either system, by itself in a network namespace, and what it cost.

`python -m lab.peer_runs ORDER` is what runs in the namespace: it takes an order and prints figures,
both as JSON.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from featherfed.errors import FeatherfedError
from lab.flower_app.loopback import loopback_bytes

LIMIT_S = 900.0
LOOK_S = 0.05
LOOKS_A_SIZE = 5
"""Memory is looked at less often: the kernel walks all pages to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run. `way`: processes, swarm or virtual of ours, `supernodes` or `simulation` of Flower.

    `uplink`, `downlink` and `workers` (processes of a swarm) are given to our side if there is something in them.
    `secure`: one circle of all phones here, SecAgg+ in Flower, with the same threshold.
    """

    name: str
    way: str
    problem: str
    phones: int
    cohort: int
    rounds: int
    train: bool
    data_dir: str | None
    epochs: int
    batch_size: int
    lr: float
    uplink: str = ""
    downlink: str = ""
    workers: int = 0
    flower: str = ""
    secure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run cost.

    `bytes_per_phone_round`: all that the loopback carried, by the phones of all rounds; `bytes_of_a_round`: from the
    end of the first round to that of the last, likewise. `start_s`: until all phones are there, or the rounds begin.
    `cpu_s`: processor time of all processes in a round, between the same moments. Memory is of a phone, of the server,
    and of all together; None where there is no such thing.
    """

    name: str
    rounds: int
    updates: int
    round_s: float
    cpu_s: float
    start_s: float
    bytes_per_phone_round: float | None
    bytes_of_a_round: float | None
    phone_bytes: float | None
    server_bytes: float | None
    all_bytes: float
    accuracy: float | None
    up_bytes: float | None = None
    """Of a phone and round, of `secure` runs: what our ledger has up, and the content of Flower's answers."""


class _Watch:
    """Looks at some processes and their children until it is stopped: their highest memory, and their CPU time."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids, self._over = pids, threading.Event()
        self.bytes = 0
        self._seen_s: list[float] = []
        self._cpu_s: list[float] = []
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        from lab.memory import cpu_s, proportional_bytes, tree

        while not self._over.wait(LOOK_S):
            members = list({member for pid in self._pids() for member in tree(pid)})
            # A process that has ended takes its time away with it.
            self._cpu_s.append(max(cpu_s(members), *self._cpu_s[-1:], 0.0))
            self._seen_s.append(time.time())
            if len(self._seen_s) % LOOKS_A_SIZE == 1:
                self.bytes = max(self.bytes, proportional_bytes(members))

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def cpu_s(self, begin_s: float, end_s: float) -> float:
        """Return the processor time between two moments, straight lines between the looks."""
        import numpy as np

        begin, end = np.interp([begin_s, end_s], self._seen_s, self._cpu_s)
        return float(end - begin)


@dataclass(frozen=True, slots=True)
class _Mark:
    """The end of a round: when, and what the loopback had carried."""

    at_s: float
    bytes: int


def _server_flags(order: Order, folder: Path) -> list[str]:
    flags = {
        "--runs": folder, "--name": "run", "--problem": order.problem, "--phones": order.phones,
        "--cohort": order.cohort, "--rounds": order.rounds, "--eval-every": order.rounds, "--epochs": order.epochs,
        "--batch-size": order.batch_size, "--lr": order.lr, "--data-dir": order.data_dir, "--uplink": order.uplink,
        "--downlink": order.downlink,
    }  # fmt: skip
    secure = ["--secure", "--circle", str(order.cohort)] if order.secure else []
    return [*secure, *(part for name, value in flags.items() if value for part in (name, str(value)))]


def featherfed(order: Order, folder: Path) -> Figures:
    """Run our server and our phones, on real sockets."""
    from featherfed.fl_bench.cells import report_of
    from featherfed.fl_bench.processes import Processes

    with Processes(folder / "logs") as processes:
        began_s, connected_s = time.monotonic(), 0.0
        ends: list[_Mark] = []

        def tell(event: dict[str, Any]) -> None:
            nonlocal connected_s
            if event["event"] == "phone_came" and event["connected"] == order.phones:
                connected_s = time.monotonic() - began_s
            if event["event"] == "round_closed":
                ends.append(_Mark(time.time(), loopback_bytes()))

        address = processes.start_server(_server_flags(order, folder), tell)
        before, started = loopback_bytes(), []
        server = _Watch(lambda: [processes.server_pid])
        flags = ["--server", address, "--problem", order.problem, "--train", "sgd" if order.train else "none"]
        flags += ["--data-dir", order.data_dir] if order.data_dir else []
        if order.way == "swarm":
            flags += ["--count", str(order.phones), "--quiet"]
            flags += ["--workers", str(order.workers)] if order.workers else []
            started.append(processes.start_phone("swarm", flags, "swarm").pid)
        else:
            for number in range(order.phones):
                name = f"phone-{number}"
                started.append(processes.start_phone(name, [*flags, "--name", name]).pid)
        phones = _Watch(lambda: started)
        try:
            processes.wait_for_server(LIMIT_S)
        finally:
            carried = loopback_bytes() - before
            phones.stop()
            server.stop()
    rounds = report_of(folder / "run")["rounds"]
    seconds = [row["seconds"] for row in rounds]
    return _figures(
        order,
        # The last round has the evaluation, which Flower is not asked for.
        seconds=seconds[:-1] or seconds,
        updates=sum(row["accepted"] for row in rounds),
        carried=carried,
        # An event is read when the next round has begun, by about as much each time; after the last there is none.
        ends=ends[:-1] if len(ends) > 2 else ends,
        watched=(phones, server),
        start_s=connected_s,
        accuracy=rounds[-1]["accuracy"] if order.train else None,
        up_bytes=sum(row["uplink"]["socket"] for row in rounds) / (order.cohort * order.rounds),
    )


def virtual(order: Order, folder: Path) -> Figures:
    """Run our server and our phones in one process, in virtual time; a round's seconds are those of the clock here."""
    from featherfed.edge_client.learner import import_torch
    from featherfed.fl_bench.cells import report_of, run_virtual
    from featherfed.fl_bench.scenario import Cell
    from featherfed.server.config import config_from
    from featherfed.server.watchers.watcher import RoundSummary, Watcher

    ends: list[tuple[float, float]] = []

    class Clock(Watcher):
        def round_closed(self, summary: RoundSummary) -> None:
            ends.append((time.monotonic(), time.process_time()))

    settings = {
        "problem": order.problem, "phones": order.phones, "cohort": order.cohort, "seed": 0,
        "rounds": order.rounds, "epochs": order.epochs, "batch_size": order.batch_size, "lr": order.lr,
        "eval_every": order.rounds,
        **{name: spec for name, spec in (("uplink", order.uplink), ("downlink", order.downlink)) if spec},
    }  # fmt: skip
    cell = Cell({}, config_from(settings), {"train": "sgd" if order.train else "none"})
    began_s, watch = time.monotonic(), _Watch(lambda: [os.getpid()])
    import_torch("cpu")
    run_virtual(cell, folder, order.data_dir, Clock())
    watch.stop()
    rounds = report_of(folder / "run")["rounds"]
    # From the end of one round to that of the next; the last one has the evaluation.
    spent = [(end[0] - begin[0], end[1] - begin[1]) for begin, end in pairwise(ends)]
    round_s, cpu_s = (median(values) for values in zip(*(spent[:-1] or spent), strict=True))
    return Figures(
        name=order.name,
        rounds=len(rounds),
        updates=sum(row["accepted"] for row in rounds),
        round_s=round_s,
        cpu_s=cpu_s,
        start_s=ends[0][0] - began_s - round_s,
        bytes_per_phone_round=None,
        bytes_of_a_round=None,
        phone_bytes=None,
        server_bytes=None,
        all_bytes=watch.bytes,
        accuracy=rounds[-1]["accuracy"] if order.train else None,
    )


def flower(order: Order, folder: Path) -> Figures:
    """Run Flower's SuperLink, and SuperNodes or the simulation."""
    from featherfed.learning.models import layout_of
    from featherfed.secure.circles import threshold_of
    from lab.flower import Flower

    if order.train:
        _write_data(order, folder)
    peer, simulation = Flower(Path(order.flower), folder), order.way == "simulation"
    try:
        began_s = time.monotonic()
        link = peer.start_server(simulation=simulation)
        before = loopback_bytes()
        nodes = [] if simulation else [peer.start_phone(number, order.phones) for number in range(order.phones)]
        server, phones = _Watch(lambda: [link.pid]), _Watch(lambda: [node.pid for node in nodes])
        settings = {
            "problem": order.problem, "parameters": layout_of(order.problem).size, "phones": order.phones, "seed": 0,
            "cohort": order.cohort, "rounds": order.rounds, "train": order.train, "data": str(folder),
            "epochs": order.epochs, "batch-size": order.batch_size, "lr": order.lr, "secure": order.secure,
            "threshold": threshold_of(order.cohort),
        }  # fmt: skip
        try:
            peer.start_run(settings, simulation=simulation).wait(LIMIT_S)
        finally:
            spent_s, carried = time.monotonic() - began_s, loopback_bytes() - before
            phones.stop()
            server.stop()
        noted = peer.noted()
    finally:
        peer.stop()
    return _figures(
        order,
        seconds=noted.seconds,
        updates=sum(noted.updates),
        carried=carried,
        ends=[_Mark(*end) for end in noted.ends],
        watched=(phones, server),
        start_s=spent_s - sum(noted.seconds),
        accuracy=noted.accuracy,
        up_bytes=noted.answered / (order.cohort * order.rounds) if noted.answered else None,
    )


def _write_data(order: Order, folder: Path) -> None:
    """Write the shards that our phones would have, and the test set, as files that Flower's clients map."""
    import numpy as np

    from featherfed.problem import Place
    from featherfed.problem_loading import load_problem

    problem = load_problem(order.problem)
    place = Place(of=order.phones, data_dir=order.data_dir)
    parts = [problem.examples(replace(place, index=index)) for index in range(order.phones)]
    test = problem.test_examples(place)
    assert test is not None, "our problems have a test set"
    arrays = {
        "images": np.concatenate([part.parts[0].numpy() for part in parts]),
        "labels": np.concatenate([part.targets.numpy() for part in parts]),
        "starts": np.cumsum([0, *map(len, parts)]),
        "test_images": test.parts[0].numpy(),
        "test_labels": test.targets.numpy(),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def _figures(
    order: Order, *, seconds: list[float], updates: int, carried: int, ends: list[_Mark],
    watched: tuple[_Watch, _Watch], start_s: float, accuracy: float | None, up_bytes: float | None,
) -> Figures:  # fmt: skip
    phones, server = watched
    first, last, later = ends[0], ends[-1], len(ends) - 1
    # Flower's simulated phones are on no socket.
    real = order.way != "simulation"
    return Figures(
        name=order.name,
        rounds=order.rounds,
        updates=updates,
        round_s=median(seconds),
        cpu_s=sum(watch.cpu_s(first.at_s, last.at_s) for watch in watched) / later,
        start_s=start_s,
        bytes_per_phone_round=carried / (order.cohort * order.rounds) if real else None,
        bytes_of_a_round=(last.bytes - first.bytes) / later / order.cohort if real else None,
        phone_bytes=phones.bytes / order.phones if real else None,
        server_bytes=server.bytes if real else None,
        all_bytes=phones.bytes + server.bytes,
        accuracy=accuracy,
        up_bytes=up_bytes,
    )


def _main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    run = {"virtual": virtual, "supernodes": flower, "simulation": flower}.get(order.way, featherfed)
    with tempfile.TemporaryDirectory(prefix="featherfed-peers-") as folder:
        try:
            figures: dict[str, Any] = asdict(run(order, Path(folder)))
        except FeatherfedError as error:
            raise SystemExit(str(error)) from error
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    _main()
