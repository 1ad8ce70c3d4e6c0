"""An own aggregation rule against liars: three of ten phones send nonsense, and the model learns all the same.

    python examples/own_rule.py

prints how good the model is with the mean, with the median and with the rule below. On sockets it is

    fl-server serve --problem examples/own_rule.py:problem --phones 10 --min-updates 7 \
        --aggregate examples/own_rule.py:CenteredClipping
    fl-edge swarm --count 10 --problem examples/own_rule.py:problem
"""

import sys
from dataclasses import dataclass, replace

import numpy as np

import featherfed as ff

LIARS = 3
"""The first phones lie."""

digits = ff.load_problem("digits/lite")


def examples(place: ff.Place) -> ff.Examples:
    """Return a phone's digits; a liar's have the labels of others, and are so bright that its updates are huge."""
    honest = digits.examples(place)
    if place.index >= LIARS:
        return honest
    return ff.Examples(20 * honest.inputs, (honest.targets + 1) % 10)


problem = replace(digits, examples=examples, name="")


@dataclass(frozen=True)
class CenteredClipping(ff.Aggregate):
    """Moves from the last round's update towards each phone's, by no more than half of the phones are away from it.

    v ← v + mean of (x − v)·min(1, τ/‖x − v‖), a few times, with τ the median of ‖x − v‖ (Karimireddy, He and Jaggi
    2021, "Learning from History for Byzantine Robust Optimization", arXiv 2012.10333; its τ is a constant). However
    far away a liar is, it moves v by τ/n at most.
    """

    steps: int = 3

    compares = True  # refused with codecs that leave most coordinates zero
    least_updates = 2 * LIARS + 1  # with less the liars could be most of them; `min_updates` below says so to the round

    def start(self, parameters: int) -> dict[str, np.ndarray]:
        """Return what is kept from round to round: the last update, (parameters,) float32."""
        return {"center": np.zeros(parameters, np.float32)}

    def combine(self, state: dict[str, np.ndarray], updates: ff.Updates) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the new state and the round's update; the arguments stay as they are."""
        center = state["center"]
        for _ in range(self.steps):
            away = np.stack(updates.rows) - center
            lengths = np.sqrt(np.square(away, dtype=np.float64).sum(axis=1))
            shorter = np.minimum(1, np.median(lengths) / np.maximum(lengths, 1e-30))
            center = center + (away * shorter[:, None]).mean(axis=0).astype(np.float32)
        return {"center": center}, center


def compare(rounds: int = 10) -> None:
    """Simulate the same phones with three rules, and print how good each model is."""
    run = ff.Experiment(
        problem,
        phones=10,
        rounds=rounds,
        local=ff.SGD(lr=0.02, epochs=2),
        uplink="rotate | eden(4)",
        min_updates=2 * LIARS + 1,
    )
    for rule in ("mean", ff.Median(), CenteredClipping()):
        report = run.replace(aggregate=rule).simulate(links="4g", seed=0)
        print(f"{rule!s:32} accuracy {report.rounds[-1].metrics['accuracy']:.1%}")


if __name__ == "__main__":
    compare(*(int(word) for word in sys.argv[1:]))
