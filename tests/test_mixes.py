"""Mixes are dealt by their shares."""

from collections import Counter

import pytest

from featherfed.errors import ConfigError
from featherfed.mixes import OTHER_STEP, check_mix, dealt


def test_every_run_of_phones_has_about_the_mix_s_shares() -> None:
    mix = {"2g": 0.2, "3g": 0.5, "4g": 0.3}
    for first in (0, 17, 400):
        counts = Counter(dealt(mix, phone) for phone in range(first, first + 50))
        assert all(abs(counts[name] / 50 - share) < 0.05 for name, share in mix.items())


def test_two_mixes_of_a_run_are_independent() -> None:
    pairs = Counter(
        (dealt({"2g": 1, "4g": 1}, phone), dealt({"slow": 1, "fast": 1}, phone, step=OTHER_STEP))
        for phone in range(400)
    )
    assert min(pairs.values()) > 80


@pytest.mark.parametrize("mix", [{}, {"3g": 0}, {"3g": -1}, {"3g": float("inf")}, {"3g": "half"}, {"3g": True}])
def test_shares_are_numbers_above_0(mix: object) -> None:
    with pytest.raises(ConfigError, match="several with shares above 0"):
        check_mix("link", mix)
