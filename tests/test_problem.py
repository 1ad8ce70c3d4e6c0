import numpy as np
import pytest
import torch

import featherfed as ff
from featherfed.errors import ConfigError, DataError, ProblemError
from tests.own_problems import regression


def test_examples_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="examples have 2 targets for inputs of 3"):
        ff.Examples(torch.zeros(3, 4), torch.zeros(2))
    with pytest.raises(DataError, match="examples have 3 targets for inputs of 3"):
        ff.Examples((torch.zeros(3, 4), torch.zeros(2)), torch.zeros(3))
    with pytest.raises(DataError, match=r"examples are tensors, and ndarray is none; torch\.as_tensor makes one"):
        ff.Examples(np.zeros(3), torch.zeros(3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": 3}, "a problem's loss is a function, and int is none"),
        ({"examples": None}, "a problem's examples is a function, and NoneType is none"),
        ({"metrics": {"mean=error": regression.loss}}, "'mean=error' cannot be the name of a metric"),
        ({"metrics": {"loss": regression.loss}}, "a metric cannot be called loss"),
        ({"metrics": {"mae": 1}}, "the metric mae is a function, and int is none"),
        ({"metrics": [regression.loss]}, 'metrics have names, like {"accuracy": ff.accuracy}, and list has none'),
        ({"settings": {"a-b": 1}}, "'a-b' cannot be the name of a setting"),
        ({"settings": ["a"]}, 'settings have names, like {"noise": 0.1}, and list has none'),
        ({"settings": {"a": [1]}}, r"the setting a is a number, a text or a bool, and \[1\] is none"),
        ({"settings": {"a": ff.Setting(None)}}, "the setting a is a number, a text or a bool, and None is none"),  # type: ignore[arg-type]
    ],
)
def test_what_could_be_no_problem_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ff.Problem(regression.model, **{"examples": regression.examples, **changes})  # type: ignore[arg-type]


def test_module_in_place_of_what_makes_one_is_refused() -> None:
    words = r"a function that makes a fresh module each time, and this is a Linear already; .* lambda: Linear\(…\)"
    with pytest.raises(ConfigError, match=words):
        ff.Problem(torch.nn.Linear(4, 1), examples=regression.examples)  # type: ignore[arg-type]
    assert ff.Problem(torch.nn.Identity, examples=regression.examples).model is torch.nn.Identity


def test_test_set_whose_return_was_forgotten_is_no_run_without_evaluation() -> None:
    forgotten = ff.Problem(regression.model, examples=regression.examples, test=lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ProblemError, match=r"it returns None, and no ff\.Examples; leave test out"):
        forgotten.test_examples(ff.Place())


def test_metrics_say_which_way_is_better() -> None:
    problem = ff.Problem(
        regression.model, examples=regression.examples,
        metrics={"accuracy": ff.accuracy, "mae": regression.measures["mae"]},
    )  # fmt: skip
    assert {name: each.higher_is_better for name, each in problem.measures.items()} == {"accuracy": True, "mae": False}

    @ff.metric
    def plain(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return 1.0

    assert plain.higher_is_better and not plain.whole and plain(None, torch.zeros(1)) == 1.0


def test_settings_are_checked_and_filled_up() -> None:
    problem = ff.Problem(
        regression.model, examples=regression.examples, name="mine",
        settings={"width": 0.5, "flip": False, "kind": ff.Setting("soft", choices=("soft", "hard")),
                  "shift": ff.Setting(1, least=0, most=3)},
    )  # fmt: skip
    assert problem.settings_with({}) == {"width": 0.5, "flip": False, "kind": "soft", "shift": 1}
    assert problem.settings_with({"width": 2, "kind": "hard"})["width"] == 2.0
    for given, words in (
        ({"widht": 1}, "problem mine has no such setting; did you mean 'width'"),
        ({"flip": 1}, "--set flip=1 is not true or false, like False"),
        ({"shift": True}, "--set shift=True is not a whole number"),
        ({"shift": 4}, "--set shift=4 exceeds 3"),
        ({"shift": -1}, "--set shift=-1 is below 0"),
        ({"kind": "warm"}, "--set kind=warm is not one of soft, hard"),
    ):
        with pytest.raises(ConfigError, match=words):
            problem.settings_with(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["iid", "shards:2", "dirichlet:0.3", "quantity:0.5"])
def test_own_data_is_cut_into_disjoint_places(spec: str) -> None:
    labels = torch.arange(300).remainder(7)
    parts = [ff.partition(labels, ff.Place(index, 5, seed=3), spec) for index in range(5)]
    everything = np.concatenate(parts)
    assert len(np.unique(everything)) == len(everything) > 285
    for index, part in enumerate(parts):
        assert np.array_equal(part, ff.partition(labels.numpy(), ff.Place(index, 5, seed=3, partition=spec)))
    assert not np.array_equal(parts[0], ff.partition(labels, ff.Place(0, 5, seed=4), spec))


def test_targets_that_are_no_labels_are_cut_by_their_number() -> None:
    assert sum(len(ff.partition(100, ff.Place(index, 3))) for index in range(3)) == 100
    assert sum(len(ff.partition(100, ff.Place(index, 3), "quantity:1")) for index in range(3)) == 100
    with pytest.raises(ConfigError, match="--partition shards:2 goes by labels, and this problem's targets are none"):
        ff.partition(100, ff.Place(0, 3), "shards:2")
    with pytest.raises(ConfigError, match=r"these are float32 of shape \(100,\); give their number"):
        ff.partition(torch.zeros(100), ff.Place(0, 3))


def test_other_labels_of_the_same_length_are_cut_anew() -> None:
    first, second = torch.arange(100).remainder(2), torch.arange(100) // 50
    place = ff.Place(0, 4)
    assert not np.array_equal(ff.partition(first, place, "shards:1"), ff.partition(second, place, "shards:1"))
    assert len(set(second[ff.partition(second, place, "shards:1")].tolist())) == 1


def test_test_set_is_made_with_or_without_a_place() -> None:
    def of_place(place: ff.Place) -> ff.Examples:
        assert place.data_dir == "here"
        return regression.test_examples(place)  # type: ignore[return-value]

    problem = ff.Problem(regression.model, examples=regression.examples, test=of_place)
    for each in (problem, regression):
        test = each.test_examples(ff.Place(data_dir="here"))
        assert test is not None and len(test) == 250
