"""Adapters on a frozen body: a model that somebody trained learns something new, and only the adapters travel.

    python examples/adapters.py

trains a body for the digits 0 to 4 first and keeps it in body.pt, as you would have a file from elsewhere. Phones then
teach it all ten digits: once with every parameter, once with the body frozen and adapters of rank 4 beside its layers
(Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685), for a part of the bytes.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import featherfed as ff

BODY = Path("body.pt")
RANK = 4

digits = ff.load_problem("digits")


def body() -> nn.Sequential:
    """Return the layers that somebody else trained, without what they know."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())


class Adapted(nn.Module):
    """A frozen linear layer W and what is learned beside it: y = W x + B A x, with A of (rank, inputs), B at zero."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(RANK, layer.in_features) / layer.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(layer.out_features, RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return W x + B A x."""
        return self.layer(x) + x @ self.a.T @ self.b.T


def whole() -> nn.Module:
    """Return the body with a new last layer: all of it is learned."""
    layers = body()
    layers.load_state_dict(torch.load(BODY))
    return nn.Sequential(*layers, nn.Linear(256, 10))


def adapted() -> nn.Module:
    """Return the same with the body frozen: what does not require a gradient never travels."""
    *layers, last = whole()
    return nn.Sequential(*(Adapted(each) if isinstance(each, nn.Linear) else each for each in layers), last)


def pretrain(steps: int) -> None:
    """Train the body on the digits 0 to 4, and keep it."""
    torch.manual_seed(0)
    layers = nn.Sequential(*body(), nn.Linear(256, 5))
    data = digits.examples(ff.Place(0, 1, seed=0))
    known = data.targets < 5
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layers(data.inputs[known]), data.targets[known]).backward()
        optimizer.step()
    torch.save(layers[:-1].state_dict(), BODY)


def compare(rounds: int = 10) -> None:
    """Simulate both, and print what travels and how good they are."""
    local = ff.SGD(lr=0.05, epochs=5)
    for name, model in {"all parameters": whole, "adapters": adapted}.items():
        learned = sum(each.numel() for each in model().parameters() if each.requires_grad)
        problem = replace(digits, model=model, name="")
        run = ff.Experiment(problem, phones=20, rounds=rounds, local=local, uplink="rotate | eden(1)")
        report = run.simulate(links="3g", seed=0)
        accuracy = report.rounds[-1].metrics["accuracy"]
        traffic = f"{report.spent.up:>9,} bytes up, {report.spent.down:>9,} down"
        print(f"{name:14} {learned:>7,} learned, {traffic}, accuracy {accuracy:.1%}")


if __name__ == "__main__":
    if not BODY.exists():
        pretrain(steps=200)
    compare(*(int(word) for word in sys.argv[1:]))
