"""Flower's SecAgg+, as its own example runs it, which notes when each round began and ended."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerApp, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid

from .loopback import loopback_bytes

app = ServerApp()


class NotingFedAvg(FedAvg):
    """Notes how many updates a round's sum has."""

    updates = 0

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Take what the workflow has unmasked."""
        self.updates = len(results)
        return super().aggregate_fit(server_round, results, failures)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds: all phones share with all others, as in one of our circles, and as many shares are needed."""
    config = context.run_config
    phones, cohort, threshold = (int(config[name]) for name in ("phones", "cohort", "threshold"))
    notes = Path(str(config["notes"]))
    first = ndarrays_to_parameters([np.zeros(int(config["parameters"]), np.float32)])
    strategy = NotingFedAvg(
        fraction_fit=cohort / phones, fraction_evaluate=0.0, min_fit_clients=cohort, min_available_clients=phones,
        initial_parameters=first,
    )  # fmt: skip
    # All other settings are its defaults: 22 bits a weight before they are summed, 32 in a sum, 64 where they travel.
    masked = SecAggPlusWorkflow(num_shares=cohort, reconstruction_threshold=threshold)

    def note(what: str, **more: Any) -> None:
        with open(notes, "a") as lines:
            lines.write(json.dumps({"what": what, "s": time.time(), "bytes": loopback_bytes(), **more}) + "\n")

    def noted(grid: Grid, context: Context) -> None:
        strategy.updates = 0
        note("begins")
        masked(grid, context)
        note("ends", updates=strategy.updates)

    legacy = LegacyContext(context=context, config=ServerConfig(num_rounds=int(config["rounds"])), strategy=strategy)
    DefaultWorkflow(fit_workflow=noted)(grid, legacy)
    note("done", accuracy=None)
