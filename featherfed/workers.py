"""Workers on this machine: how many cores a simulation may use, and the processes that train on them."""

import os

from featherfed.edge_client.training_crew import Crew, TrainingProcesses
from featherfed.edge_client.training_host import HostPlan
from featherfed.problem_names import NamedProblem
from featherfed.server.config import RunConfig
from featherfed.side_by_side import Workers


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_this_machine(config: RunConfig, wanted: int | None, named: NamedProblem, data_dir: str | None) -> Workers:
    """Return so many workers for a run (None: one a core, once they pay), no more than train at once.

    Where another process cannot load the problem, this one trains alone, which is said where workers were asked for.
    """
    size = min(cores() if wanted is None else wanted, config.largest_cohort)
    # A worker is given its end of a socket pair, which Windows cannot do.
    if size == 1 or os.name != "posix":
        return Workers()
    if named.elsewhere is None:
        asked = "" if wanted is None else (
            f"another process cannot load the problem {named.name!r}, {named.missing}; put it into a file of its own,"
            " like mytask.py"
        )  # fmt: skip
        return Workers(fault=asked)
    plan = HostPlan.here(named.elsewhere, plugins=config.plugin, data_dir=data_dir)

    def start(others: int) -> Crew:
        return TrainingProcesses(others, plan)

    return Workers(size, start, at_once=wanted is not None)
