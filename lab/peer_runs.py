"""One row of `python -m lab peers`: a run of either system, by itself in a network namespace, and what it cost.

`python -m lab.peer_runs ORDER` is what runs in the namespace: it takes an order and prints figures,
both as JSON.
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from featherfed.errors import FeatherfedError
from lab.flower_app.loopback import loopback_bytes
from lab.orders import LIMIT_S, PROGRAMS, Figures, Mark, Order, figures_of
from lab.round_runs import data_of, rounds
from lab.watch import Watch


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
        ends: list[Mark] = []

        def tell(event: dict[str, Any]) -> None:
            nonlocal connected_s
            if event["event"] == "phone_came" and event["connected"] == order.phones:
                connected_s = time.monotonic() - began_s
            if event["event"] == "round_closed":
                ends.append(Mark(time.time(), loopback_bytes()))

        address = processes.start_server(_server_flags(order, folder), tell)
        before, started = loopback_bytes(), []
        server = Watch(lambda: [processes.server_pid])
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
        phones = Watch(lambda: started)
        try:
            processes.wait_for_server(LIMIT_S)
        finally:
            carried = loopback_bytes() - before
            phones.stop()
            server.stop()
    played = report_of(folder / "run")["rounds"]
    seconds = [row["seconds"] for row in played]
    return figures_of(
        order,
        # The last round has the evaluation, which Flower is not asked for.
        seconds=seconds[:-1] or seconds,
        updates=sum(row["accepted"] for row in played),
        carried=carried,
        # An event is read when the next round has begun, by about as much each time; after the last there is none.
        ends=ends[:-1] if len(ends) > 2 else ends,
        server=server,
        phones=phones,
        start_s=connected_s,
        accuracy=played[-1]["accuracy"] if order.train else None,
        up_bytes=sum(row["uplink"]["socket"] for row in played) / (order.cohort * order.rounds),
    )


def flower(order: Order, folder: Path) -> Figures:
    """Run Flower's SuperLink, and SuperNodes or the simulation."""
    import numpy as np

    from featherfed.learning.models import layout_of
    from featherfed.secure.circles import threshold_of
    from lab.flower import Flower

    if order.train:
        for name, array in data_of(order).items():
            np.save(folder / f"{name}.npy", array)
    peer, simulation = Flower(Path(order.programs), folder), order.way == "simulation"
    try:
        began_s = time.monotonic()
        link = peer.start_server(simulation=simulation)
        before = loopback_bytes()
        nodes = [] if simulation else [peer.start_phone(number, order.phones) for number in range(order.phones)]
        server, phones = Watch(lambda: [link.pid]), Watch(lambda: [node.pid for node in nodes])
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
    return figures_of(
        order,
        seconds=noted.seconds,
        updates=sum(noted.updates),
        carried=carried,
        ends=[Mark(*end) for end in noted.ends],
        server=server,
        phones=phones,
        start_s=spent_s - sum(noted.seconds),
        accuracy=noted.accuracy,
        up_bytes=noted.answered / (order.cohort * order.rounds) if noted.answered else None,
    )


def _main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    run = {"supernodes": flower, "simulation": flower, **dict.fromkeys(PROGRAMS, rounds)}.get(order.way, featherfed)
    with tempfile.TemporaryDirectory(prefix="featherfed-peers-") as folder:
        try:
            figures: dict[str, Any] = asdict(run(order, Path(folder)))
        except FeatherfedError as error:
            raise SystemExit(str(error)) from error
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    _main()
