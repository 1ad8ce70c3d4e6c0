"""The sentence that a run with differential privacy begins with."""

import math
from typing import Any

import pytest

from featherfed.privacy.accounting import epsilon
from featherfed.server.config import config_from
from featherfed.server.model.aggregation import Aggregator
from featherfed.server.privacy_note import privacy_note

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

RUN: dict[str, Any] = {
    "problem": "digits/tiny", "phones": 100, "cohort": 10, "rounds": 20, "clip_norm": 1.0, "noise_multiplier": 1.0,
    "delta": 1e-3, "circle": 10,
}  # fmt: skip


def note(**changes: Any) -> str | None:
    config = config_from({**RUN, **changes})
    return privacy_note(config, Aggregator(config, None))


def test_plan_says_noise_account_survivors_and_bits() -> None:
    said = note(dp="distributed", secure=True, uplink="subspace(100) | grid(10)")
    assert said is not None
    most = f"{epsilon(2 * 0.5, 1e-3):.3g}"
    assert said.startswith(
        "--dp distributed: noise of 1 times what a phone moves a sum by, each in at most 2 rounds: ε is at most"
        f" {most}, δ 0.001; "
    )
    assert (
        "each phone adds noise of " in said and "a circle of 10 is opened with 9 survivors, and the noise of 8" in said
    )
    assert said.endswith(" bits a weight up")


def test_plan_of_the_servers_noise() -> None:
    assert "; the server adds noise of " in str(note(dp="central", uplink="subspace(100) | grid(8)"))
    plain = str(note(dp="central", uplink="eden-1bit", target_epsilon=3.0, noise_multiplier=0.0))
    assert "ε is at most 3, δ 0.001; in the mean of 10 updates the noise is about " in plain and "circle" not in plain


def test_plan_says_how_long_the_noise_in_the_mean_is() -> None:
    """√d Z/n clip norms of the server's noise, and of the phones' √(nh/h') times as much and their coarse steps."""

    def length(said: str | None) -> float:
        return float(str(said).partition("the noise is about ")[2].split()[0])

    assert length(note(dp="central", uplink="eden-1bit")) == pytest.approx(math.sqrt(7_946) / 10, rel=0.1)
    assert length(note(dp="central", uplink="subspace(100) | grid(12)")) == pytest.approx(1.0, rel=0.1)
    phones = note(dp="distributed", secure=True, uplink="subspace(100) | grid(12)")
    assert length(phones) == pytest.approx(math.sqrt(10 / 8), rel=0.1)


def test_plan_says_where_participations_end_before_the_rounds_do() -> None:
    said = str(note(dp="central", uplink="eden-1bit", participations=1))
    assert "each in at most 1 round, 100 of the 200 updates that --rounds 20 want: the run pauses after them: ε" in said
    assert "pauses" not in str(note(dp="central", uplink="eden-1bit", participations=2))


def test_run_without_privacy_says_nothing() -> None:
    assert note(noise_multiplier=0.0, delta=0.0, uplink="eden-1bit") is None
