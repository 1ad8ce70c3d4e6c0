"""A worker process that trains for an emulator: `python -m featherfed.edge_client.training_process DESCRIPTOR`.

The descriptor is one end of a socket pair; with the emulator, however that ends, the other end is closed and this
process ends too. It is a fresh interpreter that never imports the program that started it: a script need not guard
itself, and nothing is forked that holds locks.

    to it     HostPlan, then ("weights", number, array), ("train", job, …), ("evaluate", job, …)
    from it   None when it is ready or why it cannot work, then (job, result), with None for what failed here
"""

import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

KEPT_WEIGHTS = 4
"""Vectors of weights that a process holds, the newest ones: its emulator counts along."""


def _read(connection: Connection, orders: "queue.SimpleQueue[Any]") -> None:
    """Always read: an emulator that sends weights must not wait for a process that waits to send its update."""
    try:
        while True:
            orders.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _write(connection: Connection, results: "queue.SimpleQueue[Any]") -> None:
    """Always write: an emulator in the middle of a training of its own reads no update that no buffer holds."""
    try:
        while True:
            connection.send(results.get())
    except OSError:
        os._exit(0)


def _serve(connection: Connection, orders: "queue.SimpleQueue[Any]") -> None:
    plan = orders.get()
    try:
        from featherfed.edge_client.training_host import TrainingHost

        host = TrainingHost(plan)
    except Exception as error:
        connection.send(f"{' '.join(str(error).split())}")
        return
    connection.send(None)
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_write, args=(connection, results), name="results", daemon=True).start()
    weights: dict[int, Any] = {}
    while True:
        kind, number, *rest = orders.get()
        if kind == "weights":
            weights[number] = rest[0]
            if len(weights) > KEPT_WEIGHTS:
                del weights[next(iter(weights))]
            continue
        try:
            if kind == "train":
                welcome, version, task, residual = rest
                result: Any = host.train(welcome, weights[version], task, residual)
            else:
                place, version, first, end = rest
                result = host.evaluate(place, weights[version], first, end)
        except Exception:
            # The emulator does it again itself, and says what is wrong as it would alone.
            result = None
        results.put((number, result))


def main() -> None:
    """Work until the emulator is gone."""
    # Ctrl-C in a terminal reaches this process too: it is the emulator's to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, orders), name="orders", daemon=True).start()
    try:
        _serve(connection, orders)
    except OSError:
        os._exit(0)


if __name__ == "__main__":
    main()
