"""What a phone is told of a round, read once from Welcome and then from each Task."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client import round_settings
from featherfed.edge_client.round_settings import RunSettings
from featherfed.errors import ProtocolError
from featherfed.training_settings import Training
from featherfed.wire.messages import Task
from tests.layouts import welcome


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The specs whose pipelines were built."""
    specs: list[str] = []

    def build(spec: str, direction: str) -> Pipeline:
        specs.append(spec)
        return Pipeline.parse(spec, direction=direction)

    monkeypatch.setattr(round_settings, "buildable", build)
    yield specs


def test_pipeline_is_built_once_for_all_rounds_in_which_it_holds(built: list[str]) -> None:
    settings = RunSettings(welcome(uplink="rotate | eden(1)"))
    first = settings.in_round(Task(1, 0))
    changed = [settings.in_round(Task(number, 0, {"uplink": "float32"})) for number in (2, 3)]
    assert settings.in_round(Task(4, 0)).uplink is first.uplink
    assert changed[0].uplink is changed[1].uplink
    assert built == ["rotate | eden(1)", "float32"]


def test_task_s_changes_hold_in_its_round_alone() -> None:
    settings = RunSettings(welcome())
    before = settings.in_round(Task(1, 0)).training
    assert settings.in_round(Task(2, 0, {"epochs": 7})).training.epochs == 7
    assert settings.in_round(Task(3, 0)).training == before


def test_learning_rate_is_the_round_s() -> None:
    told = replace(welcome(), training=Training(lr=0.8, lr_decay=0.5).to_wire())
    rates = [RunSettings(told).in_round(Task(number, 0)).training.lr for number in (1, 2, 3)]
    assert rates == [0.8, 0.4, 0.2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uplink": 3}, "an uplink that is '3'"),
        ({"uplink": "zip(9)"}, "the uplink is no codec of this phone"),
        ({"patience": 3}, "a change of 'patience', which is no training setting of this phone"),
        ({"epochs": 0}, "training with --epochs 0 is below 1"),
    ],
)
def test_what_this_phone_cannot_do_is_the_server_s_fault(changes: dict, words: str) -> None:
    settings = RunSettings(welcome())
    with pytest.raises(ProtocolError, match=words):
        settings.in_round(Task(1, 0, changes))
