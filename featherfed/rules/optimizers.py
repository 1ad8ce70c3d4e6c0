"""FedAvg (McMahan et al. 2017), FedAvgM (Hsu et al. 2019), FedAdagrad, FedAdam and FedYogi (Reddi et al. 2021).

The mean update Δ is a pseudo-gradient; with server learning rate η, momentum β = 0.9, β₂ = 0.99 and τ = 10⁻³:

    fedavg      w ← w + ηΔ
    fedavgm     m ← βm + Δ,              w ← w + ηm
    fedadagrad  m ← βm + (1−β)Δ,  v ← v + Δ²,                            w ← w + ηm / (√v + τ)
    fedadam     m as fedadagrad,  v ← β₂v + (1−β₂)Δ²,                    w ← w + ηm / (√v + τ)
    fedyogi     m as fedadagrad,  v ← v − (1−β₂)Δ² sign(v − Δ²),         w ← w + ηm / (√v + τ)
"""

from abc import abstractmethod

import numpy as np

from featherfed.rules.aggregate import F32, Arrays
from featherfed.rules.server_optimizer import ServerOptimizer, ServerState

BETA1 = np.float32(0.9)
BETA2 = np.float32(0.99)
TAU = np.float32(1e-3)


class FedAvg(ServerOptimizer):
    """The mean update, η times."""

    name = "fedavg"

    def step(self, state: ServerState, update: F32, round_number: int) -> ServerState:
        """Return the model moved by the update."""
        return ServerState(state.weights + np.float32(self.lr) * update)


class FedAvgM(ServerOptimizer):
    """Momentum on the server."""

    name = "fedavgm"

    def start(self, weights: F32) -> Arrays:
        """Return no momentum."""
        return {"momentum": np.zeros_like(weights)}

    def step(self, state: ServerState, update: F32, round_number: int) -> ServerState:
        """Return the model moved by the momentum."""
        momentum = BETA1 * state.arrays["momentum"] + update
        return ServerState(state.weights + np.float32(self.lr) * momentum, {"momentum": momentum})


class Adaptive(ServerOptimizer):
    """A step that is shorter where updates vary: what FedAdagrad, FedAdam and FedYogi have in common."""

    def start(self, weights: F32) -> Arrays:
        """Return no momentum, and a variance of τ²: the first steps are not divided by almost nothing."""
        return {"momentum": np.zeros_like(weights), "variance": np.full_like(weights, TAU**2)}

    @abstractmethod
    def variance(self, before: F32, squared: F32) -> F32:
        """Return the variance after an update whose square is `squared`."""

    def step(self, state: ServerState, update: F32, round_number: int) -> ServerState:
        """Return the model moved by the momentum, coordinate by coordinate over √variance."""
        momentum = BETA1 * state.arrays["momentum"] + (1 - BETA1) * update
        variance = self.variance(state.arrays["variance"], update * update)
        weights = state.weights + np.float32(self.lr) * momentum / (np.sqrt(variance) + TAU)
        return ServerState(weights.astype(np.float32), {"momentum": momentum, "variance": variance})


class FedAdagrad(Adaptive):
    """The variance sums all squares."""

    name = "fedadagrad"

    def variance(self, before: F32, squared: F32) -> F32:
        """Return the sum."""
        return before + squared


class FedAdam(Adaptive):
    """The variance forgets."""

    name = "fedadam"

    def variance(self, before: F32, squared: F32) -> F32:
        """Return the moving mean."""
        return BETA2 * before + (1 - BETA2) * squared


class FedYogi(Adaptive):
    """The variance changes by no more than a square's share."""

    name = "fedyogi"

    def variance(self, before: F32, squared: F32) -> F32:
        """Return the variance, nearer to the square."""
        nearer: F32 = before - (1 - BETA2) * squared * np.sign(before - squared)
        return nearer
