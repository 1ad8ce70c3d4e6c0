"""How a model's initial weights may be drawn without its code: what two builds of it under two seeds show.

A module's own values are replaced only where nothing is lost by it: where they are constant, or where they are nothing
but PyTorch's default for a layer, uniform between −1/√n and 1/√n for n inputs (Kaiming He's bound with a = √5). What
cannot be told from that by its values is that.
"""

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from featherfed.initial_weights import Draw, InitialWeights, digest_of, drawn
from featherfed.learning.models import build, layout
from featherfed.problem import Problem

F32 = npt.NDArray[np.float32]

_LAYERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
CHANCE = 1e-9
"""How improbable two builds' values must be as uniform ones to be held for something else."""
TWINS_FROM = 8
"""Tensors of so many values that are equal but for signs are no coincidence."""


def initial_weights(problem: Problem, seed: int, module: nn.Module) -> tuple[F32, InitialWeights | None]:
    """Return version 0 of a run, (parameters,) float32, and how it is drawn; None where it is the problem's own.

    `module` is fresh from `build(problem, 0)`.
    """
    draws = initial_draws(module, build(problem, 1))
    if draws:
        weights = drawn(draws, layout(module), seed)
        return weights, InitialWeights(draws, digest_of(weights))
    own = [p.detach().numpy().ravel() for p in build(problem, seed).parameters() if p.requires_grad]
    return np.concatenate(own).astype(np.float32), None


def initial_draws(one: nn.Module, other: nn.Module) -> tuple[Draw, ...]:
    """Return how each learned tensor is drawn, or nothing where one has values of its own.

    `one` and `other` are a problem's model under two seeds.
    """
    learned = [[p for p in module.parameters() if p.requires_grad] for module in (one, other)]
    if [p.shape for p in learned[0]] != [p.shape for p in learned[1]] or _twins(learned[0]):
        return ()
    inputs = _inputs(one)
    draws = []
    for mine, theirs in zip(*learned, strict=True):
        draw = _draw(mine.detach(), theirs.detach(), inputs.get(id(mine), 0))
        if draw is None:
            return ()
        draws.append(draw)
    return tuple(draws)


def _inputs(module: nn.Module) -> dict[int, int]:
    """Return the number of inputs of the layer that each weight or bias belongs to, by the parameter's id.

    0 where it is of another kind of layer, or of several.
    """
    found: dict[int, int] = {}
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            inputs = 0
            if isinstance(part, _LAYERS) and name in ("weight", "bias"):
                inputs = math.prod(part.weight.shape[1:])
            known = found.setdefault(id(parameter), inputs)
            if known != inputs:
                found[id(parameter)] = 0
    return found


def _draw(one: torch.Tensor, other: torch.Tensor, inputs: int) -> Draw | None:
    if torch.equal(one, other):
        values = one.flatten()
        same = bool(len(values)) and bool((values == values[0]).all()) and math.isfinite(float(values[0]))
        return (float(values[0]), float(values[0])) if same else None
    if inputs and _uniform(torch.cat([one.flatten(), other.flatten()]).numpy(), 1 / math.sqrt(inputs)):
        return inputs
    return None


def _uniform(values: F32, bound: float) -> bool:
    """Return whether values may be drawn from the uniform distribution between −bound and bound.

    By its largest, which is below t·bound with probability t^n, and by the distance of the empirical distribution,
    which exceeds ε with probability 2·exp(−2nε²) at most (Dvoretzky, Kiefer and Wolfowitz 1956; Massart 1990).
    """
    shares = np.sort(values.astype(np.float64) / bound)
    size = len(shares)
    largest = max(-shares[0], shares[-1])
    # float32 rounds the bound itself.
    if not CHANCE ** (1 / size) <= largest <= 1 + 2.0**-20:
        return False
    below = np.arange(size) / size
    expected = (shares + 1) / 2
    distance = max(np.max(expected - below), np.max(below + 1 / size - expected))
    return bool(distance <= math.sqrt(math.log(2 / CHANCE) / (2 * size)))


def _twins(parameters: Iterable[torch.Tensor]) -> bool:
    """Return whether two tensors have the same values but for signs, and not one value only: they belong together."""
    seen: set[bytes] = set()
    for parameter in parameters:
        sizes = parameter.detach().abs().flatten()
        if len(sizes) < TWINS_FROM or bool((sizes == sizes[0]).all()):
            continue
        key = hashlib.blake2b(sizes.numpy().data).digest()
        if key in seen:
            return True
        seen.add(key)
    return False
