"""Training settings are one value: what is a field of it is a flag, a key of the configuration, and travels."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.errors import ConfigError, ProtocolError
from featherfed.server.config import RunConfig
from featherfed.training_settings import Training, parse_settings
from featherfed.wire.messages import Task, Welcome, pack, unpack
from tests.layouts import welcome

values = st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(max_size=20)
trainings = st.builds(
    Training,
    epochs=st.integers(1, 99),
    batch_size=st.integers(0, 99),
    lr=st.floats(1e-9, 1e9),
    momentum=st.floats(0, 1),
    prox_mu=st.floats(0, 1),
    set=st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), values, max_size=4),
)


@given(trainings)
def test_what_travels_is_what_was_set(training: Training) -> None:
    told = unpack(pack(welcome(training=training.to_wire())))
    assert isinstance(told, Welcome)
    assert Training.from_wire(told.training) == training


@given(trainings, trainings)
def test_what_a_task_changes_is_changed_and_nothing_else(training: Training, other: Training) -> None:
    task = unpack(pack(Task(1, 0, {"lr": other.lr, "set": other.set})))
    assert isinstance(task, Task)
    assert training.changed(task.changes) == replace(training, lr=other.lr, set=other.set)
    assert training.changed({}) == training


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "training with --epochs 0 is below 1"),
        ({"lr": "fast"}, "training whose lr is 'fast'"),
        ({"warp": 1}, "a change of 'warp', which is no training setting of this phone"),
    ],
)
def test_change_that_could_not_be_trained_with_is_the_server_s_fault(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        Training().changed(changes)


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        ([1, 10, 0.1], "3 training settings, and this phone knows 8"),
        ([1, 10, 0.1, 1, 0, 0, 0, 0], "training whose set is '0'"),
        ([1.5, 10, 0.1, 1, 0, 0, 0, {}], "training whose epochs is '1.5'"),
        ([True, 10, 0.1, 1, 0, 0, 0, {}], "training whose epochs is 'True'"),
        ([0, 10, 0.1, 1, 0, 0, 0, {}], "training with --epochs 0 is below 1"),
        ([1, 10, -1, 1, 0, 0, 0, {}], "training with --lr -1.0 is not a number above 0"),
        ([1, 10, 1, 1, 0, 0, 0, {"a b": 1}], "'a b' is not the name of a setting"),
    ],
)
def test_what_could_not_be_trained_with_is_the_server_s_fault(wire: list[Any], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        Training.from_wire(wire)


def test_run_tells_phones_all_of_them_and_phones_know_the_round_s_rate() -> None:
    config = RunConfig(lr=0.5, lr_decay=0.5, epochs=3, set={"shift": 1})
    assert config.training() == Training(lr=0.5, lr_decay=0.5, epochs=3, set={"shift": 1})
    assert config.training().in_round(3) == Training(lr=0.125, epochs=3, set={"shift": 1})
    assert {field.name for field in fields(Training)} < {field.name for field in fields(RunConfig)}
    assert config.command() == "fl-server serve --epochs 3 --lr 0.5 --lr-decay 0.5 --set shift=1"


def test_settings_of_flags_are_numbers_where_they_look_like_it() -> None:
    assert parse_settings(["a=1", "b=1.5", "c=true", "d=x=y", "e=", "a=2"]) == {
        "a": 2, "b": 1.5, "c": True, "d": "x=y", "e": "",
    }  # fmt: skip
    for text in ("a", "=1"):
        with pytest.raises(ConfigError, match="is not NAME=VALUE, like --set shift=1"):
            parse_settings([text])
