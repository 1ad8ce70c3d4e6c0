"""The server's steps beside a float64 reference that is written from the papers, not from the module."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.server.config import SERVER_OPTIMIZERS
from featherfed.server.optimizer import ServerState, start, step

SIZE = 50


def reference(optimizer: str, start_weights: np.ndarray, deltas: list[np.ndarray], lr: float) -> np.ndarray:
    """Reddi et al. 2021, algorithm 2 (η = lr, β₁ = 0.9, β₂ = 0.99, τ = 10⁻³); Hsu et al. 2019, section 4 (FedAvgM)."""
    weights = [float(w) for w in start_weights]
    for coordinate in range(len(weights)):
        momentum, variance = 0.0, 1e-3**2
        for delta in (float(update[coordinate]) for update in deltas):
            if optimizer == "fedavg":
                weights[coordinate] += lr * delta
                continue
            if optimizer == "fedavgm":
                momentum = 0.9 * momentum + delta
                weights[coordinate] += lr * momentum
                continue
            momentum = 0.9 * momentum + 0.1 * delta
            if optimizer == "fedadam":
                variance = 0.99 * variance + 0.01 * delta**2
            else:
                sign = (variance > delta**2) - (variance < delta**2)
                variance -= 0.01 * delta**2 * sign
            weights[coordinate] += lr * momentum / (math.sqrt(variance) + 1e-3)
    return np.array(weights)


@pytest.mark.parametrize("optimizer", SERVER_OPTIMIZERS)
@settings(max_examples=25)
@given(seed=st.integers(0, 1000), rounds=st.integers(1, 12), lr=st.sampled_from([0.01, 0.1, 1.0]))
def test_steps_are_those_of_the_paper(optimizer: str, seed: int, rounds: int, lr: float) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal(SIZE).astype(np.float32)
    deltas = [generator.normal(0, 0.05, SIZE).astype(np.float32) for _ in range(rounds)]
    state = start(weights, optimizer)
    for delta in deltas:
        state = step(state, delta, optimizer=optimizer, lr=lr)
    assert np.allclose(state.weights, reference(optimizer, weights, deltas, lr), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("optimizer", SERVER_OPTIMIZERS)
def test_state_stays_float32_and_the_old_one_is_left_alone(optimizer: str) -> None:
    weights = np.ones(SIZE, np.float32)
    state = start(weights, optimizer)
    before = ServerState(state.weights.copy(), state.momentum.copy(), state.variance.copy())
    after = step(state, np.full(SIZE, 0.25, np.float32), optimizer=optimizer, lr=0.1)
    for kept, now, dtype in (
        (before.weights, state.weights, after.weights.dtype),
        (before.momentum, state.momentum, after.momentum.dtype),
        (before.variance, state.variance, after.variance.dtype),
    ):
        assert np.array_equal(kept, now)
        assert dtype == np.float32
    assert not np.array_equal(after.weights, state.weights)


def test_fedavg_with_rate_one_is_the_mean_of_the_phones_models() -> None:
    weights, delta = np.ones(3, np.float32), np.array([1, 2, 3], np.float32)
    assert step(start(weights, "fedavg"), delta, optimizer="fedavg", lr=1.0).weights.tolist() == [2, 3, 4]


def test_optimizers_keep_only_the_moments_that_they_use() -> None:
    states = {name: start(np.ones(3, np.float32), name) for name in SERVER_OPTIMIZERS}
    sizes = {name: (len(state.momentum), len(state.variance)) for name, state in states.items()}
    assert sizes == {"fedavg": (0, 0), "fedavgm": (3, 0), "fedadam": (3, 3), "fedyogi": (3, 3)}
