import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

import featherfed as ff
from featherfed.errors import ProblemError
from featherfed.learning.evaluation import Evaluation, Evaluator, evaluator_for
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build
from featherfed.problem import Place, Problem
from tests.own_problems import regression, table


def with_metrics(**metrics: object) -> Problem:
    return ff.Problem(
        regression.model, examples=regression.examples, test=regression.test, loss=mse_loss,
        metrics=metrics, name="mine",  # type: ignore[arg-type]
    )  # fmt: skip


def evaluate(problem: Problem) -> Evaluation:
    module = build(problem, 0)
    weights = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    return Evaluator(problem, table(7, 250), FlatModel(module)).evaluate(weights)


def test_figures_are_means_over_all_examples_whatever_the_batches() -> None:
    """250 examples are batches of 100, 100 and 50: a mean of their means is another number."""

    def batch_mean(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return float((outputs - targets).abs().mean())

    found = evaluate(with_metrics(mae=lambda outputs, targets: (outputs - targets).abs(), batch_mean=batch_mean))
    examples = table(7, 250)
    outputs = build(regression, 0)(examples.inputs).detach()
    expected = float((outputs - examples.targets).abs().mean())
    assert found.metrics == pytest.approx({"mae": expected, "batch_mean": expected}, rel=1e-5)
    assert found.loss == pytest.approx(float(mse_loss(outputs, examples.targets)), rel=1e-5)
    assert found.examples == 250
    assert list(found.metrics) == ["mae", "batch_mean"]


def test_parts_of_an_evaluation_add_up_to_the_whole_to_the_bit() -> None:
    module = build(regression, 0)
    weights = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    evaluator = Evaluator(regression, table(7, 750), FlatModel(module))
    assert (evaluator.batches, evaluator.divisible) == (8, True)
    whole = evaluator.evaluate(weights)
    for cuts in ((0, 8), (0, 3, 8), (0, 1, 2, 7, 8)):
        rows = [row for first, end in itertools.pairwise(cuts) for row in evaluator.part(weights, first, end)]
        assert len(rows) == 8
        assert evaluator.total(rows) == whole


def test_on_another_device_than_the_servers_a_module_of_its_own_is_evaluated() -> None:
    """Not a copy: weight_norm keeps tensors that have no copy. "cpu:0" stands for a GPU."""
    problem = replace(regression, model=lambda: torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Linear(4, 1))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = build(problem, 0)
        weights = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
        kept = [p.detach().clone() for p in module.parameters()]
        other = evaluator_for(problem, Place(), module, "cpu:0")
        here = evaluator_for(problem, Place(), module)
    assert other is not None and here is not None
    assert other.evaluate(weights) == here.evaluate(weights)
    other.evaluate(np.zeros_like(weights))
    assert all(torch.equal(one, p) for one, p in zip(kept, module.parameters(), strict=True))


def test_metric_of_the_whole_gets_all_outputs_at_once() -> None:
    seen = []

    def median(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(outputs))
        return (outputs - targets).abs().median()

    found = evaluate(with_metrics(median=ff.Metric(median, higher_is_better=False, whole=True)))
    examples = table(7, 250)
    assert seen == [250]
    expected = float((build(regression, 0)(examples.inputs).detach() - examples.targets).abs().median())
    assert found.metrics["median"] == pytest.approx(expected, rel=1e-6)


def test_metric_that_raises_is_named_with_the_line_of_its_file() -> None:
    def broken(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return float(outputs[0, 5])

    words = r"metric broken \([^()]*test_evaluation\.py, line \d+\) fails \([^()]*line \d+\): IndexError: index 5"
    with pytest.raises(ProblemError, match=words):
        evaluate(with_metrics(broken=broken))


def test_metric_of_another_length_is_refused() -> None:
    with pytest.raises(ProblemError, match="returns 2 values for 100 examples; return one for each, or their mean"):
        evaluate(with_metrics(pair=lambda outputs, targets: torch.zeros(2)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": torch.nn.functional.cross_entropy, "test": lambda: ff.Examples(torch.zeros(3, 4), torch.zeros(3))},
         r"the loss does not take outputs of float32 \(2, 1\) from the model \([^()]*own_problems\.py, line \d+\) and"
         r" targets of float32 \(2,\): RuntimeError"),
        ({"test": lambda: ff.Examples(torch.zeros(3, 4), torch.zeros(3))},
         r"\(2, 1\) from the model .* and targets of float32 \(2,\): UserWarning: Using a target size"),
        ({"test": lambda: ff.Examples(torch.zeros(3, 5), torch.zeros(3, 1))},
         r"the model \([^()]*own_problems\.py, line \d+\) does not take inputs of float32 \(2, 5\): RuntimeError"),
        ({"loss": lambda outputs, targets: (outputs - targets) ** 2}, r"returns float32 \(2, 1\), and not one number"),
        ({"loss": lambda outputs, targets: targets.sum()}, "a number that does not depend on what is learned"),
        ({"test": lambda: ff.Examples(torch.zeros(0, 4), torch.zeros(0, 1))},
         r"test\(\) fails \([^()]*line \d+\): there is no example"),
        ({"test": lambda: torch.load("nowhere")}, r"test\(\) fails \([^()]*line \d+\): FileNotFoundError"),
        ({"metrics": {"best": lambda outputs, targets: outputs[:, 5]}},
         r"metric best \(.*line \d+\) fails \(.*line \d+\): IndexError"),
        ({"test": lambda: [1, 2]}, r"test\(\) fails \([^()]*line \d+\): it returns a list, and no ff\.Examples"),
    ],
    ids=["loss", "broadcast", "inputs", "no mean", "no gradient", "empty", "raises", "metric", "list"],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_the_first_round(changes: dict[str, object], words: str) -> None:
    settings: dict[str, object] = {"examples": regression.examples, "test": regression.test, "loss": mse_loss} | changes
    problem = ff.Problem(regression.model, name="mine", **settings)  # type: ignore[arg-type]
    with pytest.raises(ProblemError, match=words):
        evaluator_for(problem, Place(), build(problem, 0))


def test_no_test_set_is_no_evaluation() -> None:
    problem = ff.Problem(regression.model, examples=regression.examples, loss=mse_loss)
    assert evaluator_for(problem, Place(), build(problem, 0)) is None


def test_buffer_that_training_changes_is_refused() -> None:
    class Counts(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 1)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.seen += len(inputs)
            return super().forward(inputs)

    problem = ff.Problem(Counts, examples=regression.examples, test=regression.test, loss=mse_loss, name="counts")
    with pytest.raises(ProblemError, match="training changes the buffer 'seen', and only parameters travel"):
        evaluator_for(problem, Place(), build(problem, 0))
