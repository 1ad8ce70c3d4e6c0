"""Steps that a GPU replays are those that it would make one by one, to the bit."""

from typing import Any

import numpy as np
import pytest
import torch

from featherfed.learning import replay
from featherfed.learning.models import build
from featherfed.learning.replay import PLAIN, WORTH, Replayed
from featherfed.learning.together import train_as_one
from featherfed.randomness import RoundKey
from featherfed.training_settings import Training
from tests.layouts import digits

from .test_together import phones_of

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=on_gpu)]
STEPS = PLAIN + WORTH + 5


def sums(device: str, looks: bool) -> tuple[list[list[float]], Replayed]:
    """Sum numbers into a tensor by steps of two sizes; return what it held after each, in a plain order."""
    held, seen = torch.zeros(3, device=device), []

    def step(given: torch.Tensor) -> None:
        if looks:
            float(given.sum())
        held[: len(given)] += given

    replayed = Replayed(step, device)
    with replayed.stream():
        for number in range(STEPS):
            for size in (3, 2):
                replayed(torch.full((size,), float(number + size), device=device), left=STEPS - 1 - number)
                seen.append(held.tolist())
    return seen, replayed


def summed() -> list[list[float]]:
    held, seen = np.zeros(3), []
    for number in range(STEPS):
        for size in (3, 2):
            held[:size] += number + size
            seen.append(held.tolist())
    return seen


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("looks", [False, True], ids=["plain", "looks at what it holds"])
def test_every_step_is_made_once_and_in_its_order(device: str, looks: bool) -> None:
    seen, replayed = sums(device, looks)
    assert seen == summed()
    assert len(replayed._recorded) == (2 if device == "cuda" and not looks else 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")
@pytest.mark.parametrize(
    "settings", [{}, {"momentum": 0.9, "epochs": 2}, {"prox_mu": 0.1, "epochs": 3, "set": {"warp": 1.0}}], ids=str
)
@pytest.mark.parametrize("model", ["lite", "2nn"])
def test_phones_of_any_size_get_the_same_bits_replayed_or_not(
    model: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, sizes = digits(model), (200, 200, 165, 125)
    start = np.concatenate([each.detach().numpy().ravel() for each in build(problem, 0).parameters()])
    keys = [RoundKey(3, 2, index) for index in range(len(sizes))]

    def trained() -> list[bytes]:
        training = Training(**{"lr": 0.02, **settings})
        made = train_as_one(phones_of(problem, sizes, "cuda"), [start] * len(sizes), training, keys)
        return [each.coordinates.tobytes() for each in made if each is not None]

    replayed = trained()
    monkeypatch.setattr(replay, "WORTH", 10**9)
    assert len(replayed) == 4 and trained() == replayed
