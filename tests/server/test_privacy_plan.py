"""What `--dp` makes of a run, and the sentences of what it does not go together with."""

import sys
from typing import Any

import pytest

from featherfed.errors import ConfigError
from featherfed.privacy.accounting import epsilon
from featherfed.rules.aggregates import Mean
from featherfed.server.config import RunConfig, config_from
from featherfed.server.model.run_rules import check_rules
from featherfed.server.privacy_plan import participations, privacy_of

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

PRIVATE: dict[str, Any] = {
    "phones": 1000, "cohort": 100, "rounds": 20, "dp": "central", "clip_norm": 0.5, "target_epsilon": 8.0,
}  # fmt: skip


def checked(**changes: Any) -> RunConfig:
    config = config_from({**PRIVATE, **changes})
    check_rules(config)
    return config


class OwnMean(Mean):
    """A user's own: nobody knows how far a phone moves it."""

    name = "own-mean"


def test_noise_is_solved_for_so_that_a_phone_may_be_in_its_share_of_the_rounds() -> None:
    privacy = privacy_of(checked())
    assert privacy is not None and privacy.budget.participations == 2 and privacy.budget.delta == 1e-4
    spent = 2 / (2 * privacy.noise_multiplier**2)
    assert 7.999 < epsilon(spent, 1e-4, apart=privacy.budget.apart) <= 8 < epsilon(spent, 1e-4)


def test_noise_of_phones_is_not_charged_as_a_gaussian_s() -> None:
    grid = {"uplink": "subspace(1000) | grid(12)", "cohort": 100, "circle": 100}
    fine, summed = privacy_of(checked()), privacy_of(checked(**grid))
    coarse = privacy_of(checked(**grid, dp="distributed", secure=True))
    assert fine is not None and summed is not None and coarse is not None and coarse.budget.apart is None
    assert summed.noise_multiplier == pytest.approx(fine.noise_multiplier)
    assert coarse.noise_multiplier == pytest.approx(1.06 * fine.noise_multiplier, rel=0.02)


def test_noise_that_was_given_is_taken() -> None:
    privacy = privacy_of(checked(noise_multiplier=2.0, delta=1e-5, participations=7, target_epsilon=0.0))
    assert privacy is not None and privacy.noise_multiplier == 2.0
    assert (privacy.budget.rho, privacy.budget.delta, privacy.budget.participations) == (0.125, 1e-5, 7)


def test_run_without_dp_has_no_plan() -> None:
    assert privacy_of(RunConfig()) is None


@pytest.mark.parametrize(
    ("changes", "rounds"),
    [({}, 2), ({"rounds": 21}, 3), ({"cohort": "1:100,11:200"}, 3), ({"quorum": 50}, 1), ({"over_select": 1.5}, 2),
     ({"cohort": "1:100,30:900"}, 2)],
)  # fmt: skip
def test_participations_are_an_even_share_of_the_updates_of_all_rounds(changes: dict[str, Any], rounds: int) -> None:
    assert participations(config_from({**PRIVATE, **changes})) == rounds


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dp": "local"}, "unknown --dp 'local'"),
        ({"clip_norm": 0.0}, "--dp central needs --clip-norm: noise hides a phone only if its update is bounded"),
        ({"target_epsilon": 0.0}, "--dp central needs --noise-multiplier, like 1, or --target-epsilon, like 8"),
        ({"mode": "async"}, "--dp central counts in whose rounds a phone was, and --mode async sums"),
        ({"gateways": 4}, "--dp central keeps one account of all phones and .* --gateways 4 take sums of their own"),
        ({"connect": "when-chosen"}, "--dp central asks those who have taken part least, .* --connect when-chosen"),
        ({"aggregate": "median"}, "--dp central knows how far .* --aggregate median; use mean"),
        ({"aggregate": f"{__file__}:OwnMean"}, "--dp central knows how far .* --aggregate own-mean; use"),
        ({"select": "fast-links:0.5"}, "--dp central asks those who have taken part least, and --select fast-links"),
        ({"uplink": "feedback | exact(0) | flat | rotate_shared | grid(4)"},
         "--dp central rounds what is summed .* --uplink feedback"),
        ({"uplink": "secure-4bit", "slices": 2}, "--dp central adds as much noise to a slice as to the whole"),
        ({"dp": "distributed"}, "--dp distributed has phones add noise .* it needs --secure; or use --dp central"),
        ({"dp": "distributed", "secure": True, "slices": 2}, "--dp distributed adds as much noise to a slice"),
        ({"dp": "distributed", "secure": True, "gateways": 4}, "gateways 4"),
        ({"lost": 0.2}, "--lost 0.2 is for a run with --dp distributed"),
        ({"colluding": 0.0}, "--colluding 0 is for a run with --dp distributed"),
        ({"lost": 1.0}, "--lost 1.0 is not a number from 0 to below 1"),
        ({"colluding": -0.5}, "--colluding -0.5 is not a number from 0 to below 1"),
        ({"delta": 0.001}, r"--delta 0.001 is not a number above 0 and below 1/1000, .*; the usual one is 0\.0001"),
        ({"delta": -1.0}, "--delta -1 is not a number above 0"),
        ({"delta": float("nan")}, "--delta nan is not a number above 0"),
        ({"target_epsilon": 1e-4}, r"--target-epsilon 0\.0001 .* beyond 1000; the least ε .* for is 0\.0"),
        ({"noise_multiplier": 0.5}, "one round with --noise-multiplier 0.5 costs ε .*; 0.55 is enough for one"),
        ({"noise_multiplier": 2e3}, "--noise-multiplier 2000 is not a number from 1e-06 to 1000"),
        ({"noise_multiplier": 1e-300, "target_epsilon": 0.0}, "--noise-multiplier 1e-300 is not a number from 1e-06"),
        ({"clip_norm": 1e8}, "--noise-multiplier .* × --clip-norm 1e[+]08 is .*, and a sum has room for noise"),
        ({"dp": "", "clip_norm": 0.5}, "--target-epsilon 8 is for a run with --dp central"),
        ({"dp": "", "target_epsilon": 0.0, "participations": 3}, "--participations 3 is for a run with --dp central"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        checked(**changes)


@pytest.mark.parametrize("name", ["noise_multiplier", "target_epsilon"])
@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_numbers_that_are_none_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} .* is not a number from 0 to"):
        checked(**{name: value})


def test_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dp_accounting", "dp_accounting.rdp"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"--dp needs dp-accounting for its account: pip install 'featherfed\[dp\]'"):
        checked()


def test_flags_repeat_the_run() -> None:
    assert "--dp central --target-epsilon 8.0" in checked().command()
