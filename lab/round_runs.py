"""A simulation of all phones as one program: ours, a plain loop, or a peer's, all with the same phones and weights."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from featherfed.errors import LocalError
from lab.children import environment
from lab.orders import LIMIT_S, PROGRAMS, Figures, Mark, Order, figures_of
from lab.rounds_app.given import Given
from lab.watch import Watch

LOOK_S = 0.1


def rounds(order: Order, folder: Path) -> Figures:
    """Run the rounds of an order in its system's program, and look at it meanwhile."""
    import numpy as np

    from featherfed.learning.chain import described
    from featherfed.learning.models import build
    from featherfed.problem_loading import load_problem

    problem = load_problem(order.problem)
    module = build(problem, 0)
    given = Given(str(folder), order, cohorts_of(order), described(problem, module)["layers"])
    given.write()
    if order.way != "ours":
        np.savez(folder / "data.npz", **data_of(order))
        np.savez(folder / "weights.npz", **{name: each.numpy() for name, each in module.state_dict().items()})
    began_s = time.time()
    with _started(order, folder) as processes:
        watch = Watch(lambda: [process.pid for process in processes])
        try:
            _wait(folder, processes)
        finally:
            watch.stop()
    notes = given.notes()
    if len(notes) != order.rounds:
        raise LocalError(f"it finished {len(notes)} rounds of {order.rounds}: {_said(folder)}")
    ends = [Mark(note["s"], 0) for note in notes]
    spent = [end.at_s - begin.at_s for begin, end in pairwise(ends)]
    return figures_of(
        order,
        # Of the first round there is no beginning, and in it a peer compiles; the last alone may have an evaluation.
        seconds=spent if order.evaluates else spent[:-1] or spent,
        updates=sum(note["updates"] for note in notes),
        ends=ends,
        server=watch,
        start_s=ends[0].at_s - began_s - min(spent),
        accuracy=notes[-1]["accuracy"],
    )


def data_of(order: Order) -> dict[str, Any]:
    """Return the shards that our phones would have, one behind the other from `starts` on, and the test set."""
    import numpy as np

    from featherfed.problem import Place
    from featherfed.problem_loading import load_problem

    problem = load_problem(order.problem)
    place = Place(of=order.phones, data_dir=order.data_dir)
    parts = [problem.examples(replace(place, index=index)) for index in range(order.phones)]
    test = problem.test_examples(place)
    assert test is not None, "our problems have a test set"
    return {
        "images": np.concatenate([part.parts[0].numpy() for part in parts]),
        "labels": np.concatenate([part.targets.numpy() for part in parts]),
        "starts": np.cumsum([0, *map(len, parts)]),
        "test_images": test.parts[0].numpy(),
        "test_labels": test.targets.numpy(),
    }


def cohorts_of(order: Order) -> list[list[int]]:
    """Return the phones that our server asks in each round."""
    from featherfed.server.config import config_from
    from featherfed.server.rounds.resume_point import rules

    of_run = rules(config_from({"problem": order.problem, "phones": order.phones, "cohort": order.cohort, "seed": 0}))
    return [list(of_run.drawn(number)) for number in range(1, order.rounds + 1)]


@contextmanager
def _started(order: Order, folder: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Give the processes of an order's program; they end with this one, or at the end of the block."""
    python = str(Path(order.programs) / "python") if order.programs else sys.executable
    command = [python, "-m", "featherfed.fl_bench.tether", PROGRAMS[order.way], str(folder)]
    # Of ours, workers are its own to start.
    count = 1 if order.way == "ours" else max(1, order.workers)
    addresses = {"PFL_WORKER_ADDRESSES": ",".join(_free_addresses(count))} if count > 1 else {}
    end, held = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, end)
        stack.callback(os.close, held)
        log = stack.enter_context(open(folder / "log", "w"))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(count):
                # One thread a process, of torch too: more would only wait for each other. XLA has threads of its own.
                more = {**addresses, "PFL_WORKER_RANK": str(rank), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
                processes.append(
                    subprocess.Popen(command, stdin=end, stdout=log, stderr=log, cwd=folder, env=environment(**more))
                )
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{probe.getsockname()[1]}" for probe in probes]


def _wait(folder: Path, processes: list["subprocess.Popen[bytes]"]) -> None:
    until_s = time.monotonic() + LIMIT_S
    while any(process.poll() is None for process in processes):
        if time.monotonic() > until_s:
            raise LocalError(f"it was not through after {LIMIT_S:.0f} s: {_said(folder)}")
        if any(process.poll() for process in processes):
            break
        time.sleep(LOOK_S)
    if any(process.returncode for process in processes):
        raise LocalError(f"its program failed: {_said(folder)}")


def _said(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace").strip()[-400:]
