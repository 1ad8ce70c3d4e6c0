"""An own model on tabular data, with a metric that is not accuracy: ten clinics learn how a disease goes on.

    python examples/tabular.py           # simulated, in this process
    python examples/tabular.py serve     # the same run on sockets, for phones like
    fl-edge swarm --count 10 --server ws://127.0.0.1:8765 --problem examples/tabular.py:problem

The data is scikit-learn's: 442 patients, ten measurements of each, and how far their diabetes had gone a year later
(Efron et al. 2004, "Least angle regression").
"""

import functools
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

import featherfed as ff

TEST = 92
"""The last patients are for testing."""
POINTS = 100.0
"""The model says the disease's progression in hundreds of points."""


@functools.cache
def patients() -> tuple[torch.Tensor, torch.Tensor]:
    """Return measurements, (442, 10) and standardized, and progression in hundreds of points, (442, 1)."""
    # The files alone: importing scikit-learn would cost each phone a second and 100 MB.
    data = Path(find_spec("sklearn").origin).parent / "datasets" / "data"
    inputs = np.loadtxt(data / "diabetes_data_raw.csv.gz", np.float32)
    progression = np.loadtxt(data / "diabetes_target.csv.gz", np.float32)
    order = np.random.default_rng(0).permutation(len(inputs))
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    return torch.from_numpy(inputs[order]), torch.from_numpy(progression[order]).unsqueeze(1) / POINTS


def model() -> nn.Module:
    """Return a small network; it is made under the run's seed."""
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))


def examples(place: ff.Place) -> ff.Examples:
    """Return the patients of one clinic: its part of the training set."""
    inputs, progression = patients()
    mine = torch.from_numpy(ff.partition(len(inputs) - TEST, place))
    return ff.Examples(inputs[mine], progression[mine])


def test() -> ff.Examples:
    """Return the server's patients, whom no clinic has seen."""
    inputs, progression = patients()
    return ff.Examples(inputs[-TEST:], progression[-TEST:])


@ff.metric(higher_is_better=False)
def mae(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return each patient's absolute error, in points."""
    return (outputs - targets).abs() * POINTS


problem = ff.Problem(model, examples=examples, test=test, loss=nn.functional.smooth_l1_loss, metrics={"mae": mae})


def experiment(rounds: int = 40) -> ff.Experiment:
    """Return the run: all ten clinics in each round, updates of one bit a weight."""
    local = ff.SGD(lr=0.05, epochs=2, batch_size=10)
    return ff.Experiment(problem, phones=10, cohort=10, rounds=rounds, local=local, uplink="rotate | eden(1)")


if __name__ == "__main__":
    run = experiment(*(int(word) for word in sys.argv[1:] if word.isdigit()))
    serves = "serve" in sys.argv
    report = run.serve("127.0.0.1:8765", folder="runs/clinics") if serves else run.simulate(links="3g")
    best = report.best("mae")
    print(f"off by {best.metrics['mae']:.1f} points after round {best.round}, {report.spent}")
