from collections.abc import Callable

import pytest

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.units import parse_duration, parse_percent, parse_rate, parse_size


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_rate, "256kbps", 32_000),
        (parse_rate, "1mbps", 125_000),
        (parse_rate, "14.4 kbit/s", 1800),
        (parse_rate, "32KiB/s", 32_768),
        (parse_rate, "0kbps", 0),
        (parse_duration, "80ms", 0.08),
        (parse_duration, "5min", 300),
        (parse_size, "20kB", 20_000),
        (parse_size, "32KiB", 32_768),
        (parse_percent, "1%", 0.01),
    ],
)
def test_quantities_are_read_as_written(parse: Callable[[str], float], text: str, value: float) -> None:
    assert parse(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("parse", "text", "reason"),
    [
        (parse_rate, "256", "no unit"),
        (parse_rate, "-1kbps", "not negative"),
        (parse_rate, "fast", "not a number"),
        (parse_rate, "3kB", "unknown unit"),
        (parse_duration, "5 fortnights", "unknown unit"),
        (parse_percent, "101%", "over 100%"),
        (parse_size, "1e999kB", "finite"),
        (parse_size, "1e308GB", "at most 1e\\+15 bytes"),
        (parse_rate, "9" * 5000 + "kbps", "'9{40}…' must be finite"),
        (parse_duration, "1e308h", "finite"),
        (parse_duration, "9" * 5000, "'9{40}…' has no unit"),
        (parse_duration, "nans", "not a number"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_sentence(parse: Callable[[str], float], text: str, reason: str) -> None:
    with pytest.raises(LinkConfigError, match=reason):
        parse(text)
