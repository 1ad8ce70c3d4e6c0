"""The server's steps beside a float64 reference that is written from the papers, not from the module."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.rules.naming import load_server_optimizer, names_of
from featherfed.rules.server_optimizer import ServerOptimizer, ServerState

SIZE = 50
SERVER_OPTIMIZERS = names_of(ServerOptimizer)


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
            if optimizer == "fedadagrad":
                variance += delta**2
            elif optimizer == "fedadam":
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
    rule = load_server_optimizer(optimizer, lr)
    state = ServerState(weights, rule.start(weights))
    for number, delta in enumerate(deltas, 1):
        state = rule.step(state, delta, number)
    assert np.allclose(state.weights, reference(optimizer, weights, deltas, lr), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("optimizer", SERVER_OPTIMIZERS)
def test_state_stays_float32_and_the_old_one_is_left_alone(optimizer: str) -> None:
    weights, rule = np.ones(SIZE, np.float32), load_server_optimizer(optimizer, 0.1)
    state = ServerState(weights, rule.start(weights))
    before = {"weights": weights.copy(), **{name: array.copy() for name, array in state.arrays.items()}}
    after = rule.step(state, np.full(SIZE, 0.25, np.float32), 1)
    assert all(np.array_equal(before[name], array) for name, array in {"weights": weights, **state.arrays}.items())
    assert {array.dtype for array in (after.weights, *after.arrays.values())} == {np.dtype(np.float32)}
    assert not np.array_equal(after.weights, weights)


def test_fedavg_with_rate_one_is_the_mean_of_the_phones_models() -> None:
    weights, delta = np.ones(3, np.float32), np.array([1, 2, 3], np.float32)
    assert load_server_optimizer("fedavg", 1.0).step(ServerState(weights), delta, 1).weights.tolist() == [2, 3, 4]


def test_optimizers_keep_only_the_moments_that_they_use() -> None:
    kept = {name: list(load_server_optimizer(name, 1.0).start(np.ones(3, np.float32))) for name in SERVER_OPTIMIZERS}
    both = ["momentum", "variance"]
    assert kept == {"fedavg": [], "fedavgm": ["momentum"], "fedadagrad": both, "fedadam": both, "fedyogi": both}
