import pytest

from featherfed.edge_client.device import parse_device
from featherfed.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("cpu", ("cpu", 0.0)),
        ("cuda", ("cuda", 0.0)),
        ("slow", ("cpu", 0.2)),
        ("0.02", ("cpu", 0.02)),
        ("20ms", ("cpu", 0.02)),
        ("3", ("cpu", 3.0)),
    ],
)
def test_a_device_is_a_torch_device_a_kind_of_phone_or_seconds_a_step(text: str, parsed: tuple[str, float]) -> None:
    assert parse_device(text) == parsed


@pytest.mark.parametrize("text", ["", "fastest", "-1", "1.2.3", "5kB", "inf", "nan"])
def test_anything_else_is_refused_with_what_would_do(text: str) -> None:
    with pytest.raises(ConfigError, match=r"slow, mid, fast, and no time a training step like 0\.02 or 20ms"):
        parse_device(text)
