"""`ff.SGD` takes what `Training` has, whatever that is."""

from dataclasses import make_dataclass

import pytest

from featherfed import local_training
from featherfed.errors import ConfigError
from featherfed.training_settings import Training, setting


def test_setting_that_training_gains_is_a_keyword_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="has no keyword 'jitter'"):
        local_training.SGD(jitter=0.5)
    jitter = ("jitter", float, setting(0.0, "Noise of the inputs.", least=0))
    monkeypatch.setattr(local_training, "Training", make_dataclass("More", [jitter], bases=(Training,), frozen=True))
    made = local_training.SGD(0.05, epochs=2, jitter=0.5)
    assert isinstance(made, Training)
    assert (made.lr, made.epochs, made.jitter) == (0.05, 2, 0.5)  # type: ignore[attr-defined]
    changing = local_training.SGD(jitter=[0.5, 0.25])
    assert isinstance(changing, local_training.TrainingByRound)
    assert changing.later["jitter"].at(2) == 0.25
    with pytest.raises(ConfigError, match="jitter = 'much' is not a number"):
        local_training.SGD(jitter="much")
