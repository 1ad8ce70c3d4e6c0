"""A plain loop in PyTorch: FedAvg's rounds as one would write them down first, on one thread."""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from featherfed.learning.models import build
from featherfed.problem_loading import load_problem
from lab.rounds_app.given import Given

EVALUATED_AT_ONCE = 500


def train(model: nn.Module, given: Given, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Make a phone's local steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=given.order.lr)
    for _ in range(given.order.epochs):
        for chosen in torch.randperm(len(labels)).split(given.order.batch_size):
            optimizer.zero_grad()
            cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of images whose label the model knows."""
    with torch.inference_mode():
        guesses = torch.cat([model(batch).argmax(1) for batch in images.split(EVALUATED_AT_ONCE)])
    return float((guesses == labels).float().mean())


def main(folder: Path) -> None:
    """Run the rounds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given = Given.read(folder)
    shards = [(torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in given.shards]
    test_images, test_labels = map(torch.from_numpy, given.test)
    model = build(load_problem(given.order.problem), 0)
    weights = {name: torch.from_numpy(array) for name, array in given.weights.items()}
    for cohort in given.cohorts:
        total = sum(len(shards[phone][1]) for phone in cohort)
        mean = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for phone in cohort:
            model.load_state_dict(weights)
            train(model, given, *shards[phone])
            for name, weight in model.state_dict().items():
                mean[name] += weight * (len(shards[phone][1]) / total)
        weights = mean
        model.load_state_dict(weights)
        given.note(len(cohort), accuracy(model, test_images, test_labels))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
