"""Flower's FedAvg, which notes when each round began and ended, and what the loopback had carried."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .loopback import loopback_bytes

app = ServerApp()


class NotingFedAvg(FedAvg):
    """Writes a line of JSON at both ends of a round."""

    def __init__(self, notes: Path, **settings: Any) -> None:
        super().__init__(**settings)
        self._notes = notes

    def _note(self, what: str, **more: Any) -> None:
        with open(self._notes, "a") as notes:
            notes.write(json.dumps({"what": what, "s": time.time(), "bytes": loopback_bytes(), **more}) + "\n")

    def configure_train(self, *given: Any, **named: Any) -> Iterable[Message]:
        """Begin a round."""
        self._note("begins")
        messages: Iterable[Message] = super().configure_train(*given, **named)
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """End a round: what comes after is evaluation, which nobody is asked for."""
        replies = list(replies)
        mean = super().aggregate_train(server_round, replies)
        self._note("ends", updates=sum(not reply.has_error() for reply in replies))
        return mean


def first_weights(config: dict[str, Any]) -> ArrayRecord:
    """Return the weights that our server starts from, or zeros where nobody trains."""
    if not config["train"]:
        return ArrayRecord([np.zeros(config["parameters"], np.float32)])
    from featherfed.learning.models import build
    from featherfed.problem_loading import load_problem

    return ArrayRecord(build(load_problem(config["problem"]), config["seed"]).state_dict())


def accuracy(arrays: ArrayRecord, config: dict[str, Any]) -> float:
    """Return the share of test images that the final model knows."""
    import torch

    from featherfed.learning.models import build
    from featherfed.problem_loading import load_problem

    folder = Path(config["data"])
    model = build(load_problem(config["problem"]), 0)
    model.load_state_dict(arrays.to_torch_state_dict())
    model.eval()
    labels = torch.from_numpy(np.load(folder / "test_labels.npy"))
    with torch.inference_mode():
        batches = torch.from_numpy(np.load(folder / "test_images.npy")).split(1000)
        guesses = torch.cat([model(images).argmax(1) for images in batches])
    return float((guesses == labels).float().mean())


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    config = context.run_config
    notes, cohort = Path(config["notes"]), config["cohort"]
    strategy = NotingFedAvg(
        notes, fraction_train=cohort / config["phones"], fraction_evaluate=0.0, min_train_nodes=cohort,
        min_available_nodes=config["phones"],
    )  # fmt: skip
    result = strategy.start(grid=grid, initial_arrays=first_weights(config), num_rounds=config["rounds"])
    strategy._note("done", accuracy=accuracy(result.arrays, config) if config["train"] else None)
