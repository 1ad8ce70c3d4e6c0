"""Our simulation in virtual time, with workers that are there before it begins."""

import sys
import time
from pathlib import Path

from featherfed.edge_client.learner import import_torch
from featherfed.fl_bench.cells import run_virtual
from featherfed.fl_bench.scenario import Cell
from featherfed.server.config import config_from
from featherfed.server.watchers.watcher import RoundSummary, Watcher
from lab.rounds_app.given import Given
from lab.workers import ready_workers


class Notes(Watcher):
    """Notes the end of each round."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._ended_s = 0.0

    def version_published(self, summary: RoundSummary) -> None:
        """Note when: the evaluation is made beside the next round."""
        self._ended_s = time.time()

    def round_closed(self, summary: RoundSummary) -> None:
        """Note it."""
        self._given.note(summary.accepted, summary.metrics.get("accuracy"), at_s=self._ended_s)


def main(folder: Path) -> None:
    """Run the rounds."""
    given = Given.read(folder)
    order = given.order
    settings = {
        "problem": order.problem, "phones": order.phones, "cohort": order.cohort, "seed": 0, "rounds": order.rounds,
        "epochs": order.epochs, "batch_size": order.batch_size, "lr": order.lr,
        "eval_every": 1 if order.evaluates else order.rounds,
        **{name: spec for name, spec in (("uplink", order.uplink), ("downlink", order.downlink)) if spec},
    }  # fmt: skip
    cell = Cell({}, config_from(settings), {"train": "sgd" if order.train else "none"})
    import_torch("cpu")
    with ready_workers(cell.config, order.workers or 1) as workers:
        run_virtual(cell, folder, order.data_dir, Notes(given), workers=workers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
