from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from featherfed.by_round import ByRound
from featherfed.errors import ConfigError
from featherfed.problem import metric
from featherfed.problem_loading import load_problem
from featherfed.server.config import RunConfig
from featherfed.server.measures import LOSS, Measure, figures
from featherfed.server.model.aggregation import Aggregator
from featherfed.server.rounds.resume_point import begin, resume, rules
from featherfed.server.rounds.round_machine import Phase
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.store import (
    Store,
    StoredUpdate,
    close_round,
    put_evaluation,
    put_phone,
    put_round,
    put_update,
    put_value,
)

CONFIG = RunConfig(problem="digits/lite", phones=4, cohort=3, over_select=1.3, quorum=2, rounds=5)
DIGEST = b"12345678"


@pytest.fixture(scope="module")
def fresh() -> Callable[[], Aggregator]:
    return lambda: Aggregator(CONFIG, None)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_rules_are_the_configuration_s() -> None:
    made = rules(CONFIG)
    assert (made.phones, made.cohort_size, made.target, made.rounds) == (4, ByRound(4), ByRound(2), 5)


def test_every_new_run_has_an_id_of_its_own(folder: RunFolder, fresh: Callable[[], Aggregator]) -> None:
    store = Store(folder.database)
    first, second = (begin(CONFIG, store, fresh()) for _ in range(2))
    assert first.run != second.run
    values = store.values()
    assert (values["run"], values["parameters"]) == (second.run, "29322")
    assert store.measures() == (Measure("accuracy", fraction=True), LOSS)
    assert (second.state.phase, second.state.round_number) == (Phase.GATHERING, 0)
    store.close()


def test_run_that_was_stopped_before_its_first_line_begins_anew(
    folder: RunFolder, fresh: Callable[[], Aggregator]
) -> None:
    store = Store(folder.database)
    point = resume(CONFIG, store, folder, fresh())
    assert store.values()["run"] == point.run
    assert point.state.round_number == 0
    store.close()


def test_run_with_a_model_and_an_empty_database_is_not_begun_anew(
    folder: RunFolder, fresh: Callable[[], Aggregator]
) -> None:
    """Its rounds would be played again from nothing, over the model that they had made."""
    store = Store(folder.database)
    folder.model.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"has a model, and its database .*run\.sqlite is empty: put"):
        resume(CONFIG, store, folder, fresh())
    assert store.values() == {}
    store.close()


def test_open_round_stands_as_it_was_with_its_updates(folder: RunFolder, fresh: Callable[[], Aggregator]) -> None:
    store = Store(folder.database)
    run = begin(CONFIG, store, fresh()).run
    store.apply(
        [put_phone(shard, f"phone-{shard}") for shard in range(4)]
        + [
            put_round(1, 1, [0, 1, 2], [2], 7.5),
            put_update(StoredUpdate(1, 0, "accepted", 6, DIGEST, 10, counts_in=1)),
            put_update(StoredUpdate(1, 1, "receiving", 6, DIGEST, 10)),
        ]
    )
    aggregator = fresh()
    point = resume(CONFIG, store, folder, aggregator)
    state = point.state
    assert (point.run, point.round_start_s) == (run, 7.5)
    assert (state.phase, state.round_number, state.attempt) == (Phase.OPEN, 1, 1)
    assert (state.cohort, state.accepted, state.failed) == ({0, 1, 2}, {0}, {2})
    assert state.present == frozenset(range(4))
    assert aggregator.sum.open_round == 1
    store.close()


def test_closed_round_goes_on_with_the_model_that_the_database_names(
    folder: RunFolder, fresh: Callable[[], Aggregator]
) -> None:
    store, before = Store(folder.database), fresh()
    begin(CONFIG, store, before)
    before.sum.open(1)
    before.close(1)
    folder.write_version(1, before.save)
    # A later version was written, and the server died before the database knew of it.
    folder.write_version(2, lambda path: path.write_text("half a mod") and None)
    store.apply(
        [
            put_round(1, 0, [0, 1], (), 0.0),
            close_round(1, seconds=3.0, late=0, failed=0),
            put_evaluation(1, 0.4, {"accuracy": 0.9}),
            put_value("version", "1"),
        ]
    )
    after = fresh()
    point = resume(CONFIG, store, folder, after)
    assert (point.state.phase, point.state.round_number) == (Phase.GATHERING, 1)
    assert after.best_score == 0.9
    again = folder.path / "again.safetensors"
    after.save(again)
    assert again.read_bytes() == folder.version(1).read_bytes()
    store.close()


def test_best_of_a_metric_of_which_less_is_better_is_kept_over_a_resume(folder: RunFolder) -> None:
    def error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs.argmax(1) != targets).float()

    digits = load_problem("digits/tiny")
    problem = replace(digits, metrics={"error": metric(error, higher_is_better=False, fraction=True), **digits.metrics})
    store, before = Store(folder.database), Aggregator(CONFIG, None, problem=problem)
    begin(CONFIG, store, before)
    before.sum.open(1)
    before.close(1)
    folder.write_version(1, before.save)
    rows = [(1, {"error": 0.02, "accuracy": 0.98}), (2, {"error": 0.01, "accuracy": 0.1}), (3, {"error": None})]
    store.apply([put_value("version", "1"), put_value("best", "2")])
    for number, metrics in rows:
        store.apply([put_round(number, 0, [0], (), 0.0)])
        store.apply([close_round(number, seconds=1.0, late=0, failed=0), put_evaluation(number, 0.1, metrics)])
    after = Aggregator(CONFIG, None, problem=problem)
    resume(CONFIG, store, folder, after)
    assert after.best_score == -0.01
    # The untrained model of the next round errs more, and is no better one.
    after.sum.open(4)
    after.close(4)
    evaluation = after.evaluate()
    assert evaluation is not None
    assert not after.best_so_far(figures(evaluation.loss, evaluation.metrics))
    assert [each.name for each in store.measures()] == ["error", "accuracy", "loss"]
    store.close()
