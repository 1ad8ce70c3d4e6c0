"""The server's step: FedAvg (McMahan et al. 2017), FedAvgM (Hsu et al. 2019), FedAdam and FedYogi (Reddi et al. 2021).

The mean update Δ is a pseudo-gradient; with server learning rate η, momentum β = 0.9, β₂ = 0.99 and τ = 10⁻³:

    fedavg    w ← w + ηΔ
    fedavgm   m ← βm + Δ,              w ← w + ηm
    fedadam   m ← βm + (1−β)Δ,  v ← β₂v + (1−β₂)Δ²,                    w ← w + ηm / (√v + τ)
    fedyogi   m as fedadam,     v ← v − (1−β₂)Δ² sign(v − Δ²),         w ← w + ηm / (√v + τ)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

BETA1 = np.float32(0.9)
BETA2 = np.float32(0.99)
TAU = np.float32(1e-3)


@dataclass(frozen=True, slots=True)
class ServerState:
    """The model and the optimizer's moments, each (parameters,) float32; absent moments are empty."""

    weights: F32
    momentum: F32
    variance: F32


def start(weights: F32, optimizer: str) -> ServerState:
    """Return the state before the first round."""
    moments = np.zeros_like(weights) if optimizer != "fedavg" else np.zeros(0, np.float32)
    # Reddi et al. start v at τ², so that the first steps are not divided by almost nothing.
    variance = np.full_like(weights, TAU * TAU) if optimizer in {"fedadam", "fedyogi"} else np.zeros(0, np.float32)
    return ServerState(weights, moments, variance)


def step(state: ServerState, delta: F32, *, optimizer: str, lr: float) -> ServerState:
    """Return the state after one round whose mean update is `delta`, (parameters,) float32."""
    rate = np.float32(lr)
    if optimizer == "fedavg":
        return ServerState(state.weights + rate * delta, state.momentum, state.variance)
    if optimizer == "fedavgm":
        momentum = BETA1 * state.momentum + delta
        return ServerState(state.weights + rate * momentum, momentum, state.variance)
    momentum = BETA1 * state.momentum + (1 - BETA1) * delta
    squared = delta * delta
    if optimizer == "fedadam":
        variance = BETA2 * state.variance + (1 - BETA2) * squared
    else:
        variance = state.variance - (1 - BETA2) * squared * np.sign(state.variance - squared)
    weights = state.weights + rate * momentum / (np.sqrt(variance) + TAU)
    return ServerState(weights.astype(np.float32), momentum, variance)
