"""A problem on a phone is the server's, has examples for its shard, and fits together, before the first round."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import featherfed as ff
from featherfed.edge_client import local_problem
from featherfed.edge_client.local_problem import LocalProblem
from featherfed.errors import ProblemError
from featherfed.fingerprint import Fingerprint
from featherfed.learning.models import build, fingerprint
from featherfed.problem import Problem
from featherfed.wire.messages import Welcome, tensor_entries
from tests.layouts import welcome
from tests.own_problems import Adapted, frozen, regression


def told(problem: Problem, **more: Any) -> Welcome:
    known: Fingerprint = fingerprint(build(problem, 0))
    tensors = tensor_entries(known.rows())
    return welcome(problem=problem.name, tensors=tensors, **more)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return the learner of a phone with a problem of its own."""

    def make(problem: Problem, welcome: Welcome, data_dir: str | None = None) -> Any:
        monkeypatch.setattr(local_problem, "load_problem", lambda name: problem)
        return LocalProblem("mine:problem", "cpu").learner(welcome, data_dir)

    return make


def test_place_is_what_the_server_said_of_the_phone(play: Callable[..., Any]) -> None:
    seen = []

    def examples(place: ff.Place) -> ff.Examples:
        seen.append(place)
        return regression.examples(place)

    problem = ff.Problem(
        regression.model, examples=examples, loss=regression.loss, settings={"width": 1}, name="mine"
    )  # fmt: skip
    learner = play(problem, told(problem, shard=3, shards=9, seed=5, settings={"width": 2}), "here")
    assert seen == [ff.Place(3, 9, 5, "iid", "here", {"width": 2})]
    assert learner.examples == 120


def test_another_model_than_the_server_s_is_refused_with_the_tensor_that_differs(play: Callable[..., Any]) -> None:
    wide = ff.Problem(lambda: torch.nn.Linear(5, 1), examples=regression.examples, name="wide")
    theirs = ff.Problem(lambda: torch.nn.Linear(4, 1), examples=regression.examples, name="theirs")
    words = "--problem mine:problem is not the run's problem theirs: tensor 'weight' has shape 1×5 here and 1×4 at the"
    with pytest.raises(ProblemError, match=words):
        play(wide, told(theirs))


def test_another_frozen_body_than_the_server_s_is_refused(play: Callable[..., Any]) -> None:
    def other() -> torch.nn.Module:
        torch.rand(1)
        return Adapted()

    with pytest.raises(ProblemError, match=r"tensor 'body\.0\.weight' is not learned, and must be the same"):
        play(ff.Problem(other, examples=frozen.examples, loss=frozen.loss), told(frozen))


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        (lambda place: ff.Examples(torch.zeros(0, 4), torch.zeros(0, 1)),
         r"examples\(\) fails \(.*line \d+\): there are no examples for shard 2 of 10 on this phone"),
        (lambda place: Path("nowhere").read_text(), r"examples\(\) fails \(.*line \d+\): FileNotFoundError"),
        (lambda place: 3, r"examples\(\) fails \([^()]*line \d+\): it returns a int, and no ff\.Examples"),
        (lambda place: ff.Examples(torch.zeros(2, 5), torch.zeros(2, 1)), r"does not take inputs of float32 \(2, 5\)"),
        (lambda place: ff.Examples(torch.zeros(2, 4), torch.zeros(3, 1)), r"\(.*line \d+\): examples have 3 targets"),
    ],
)  # fmt: skip
def test_examples_that_nothing_could_be_learned_from_are_told(
    examples: Callable[[ff.Place], ff.Examples], words: str, play: Callable[..., Any]
) -> None:
    problem = ff.Problem(regression.model, examples=examples, loss=regression.loss, name="mine")
    with pytest.raises(Exception, match=words) as caught:
        play(problem, told(problem))
    assert isinstance(caught.value, ff.FeatherfedError)
