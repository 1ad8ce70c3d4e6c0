"""Mixes: what the phones of a run have by shares, like half of them on 3G and half on 4G, dealt to them one by one."""

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from featherfed.errors import ConfigError

T = TypeVar("T", bound=Hashable)

STEP, OTHER_STEP = 0.6180339887498949, 0.4142135623730951
"""Multiples of the golden ratio (or of √2) spread 0, 1, 2, … evenly over the unit interval. Two mixes of a run take one
each, or every slow link would have the same device."""
MOST_SHARE = 1e9


def dealt(mix: T | Mapping[T, float], phone: int, *, step: float = STEP) -> T:
    """Return what a phone has of a mix, or of all phones the same: every run of phones has about the mix's shares.

    >>> [dealt({"3g": 0.5, "4g": 0.5}, phone) for phone in range(6)]
    ['3g', '4g', '3g', '4g', '3g', '3g']
    """
    if not isinstance(mix, Mapping):
        return mix
    place = phone * step % 1.0
    total = sum(mix.values())
    for part, share in mix.items():
        place -= share / total
        if place < 0:
            return part
    return part


def check_mix(kind: str, mix: Any) -> None:
    """Raise `ConfigError` for a mix without parts, or with a share that is no number above 0."""
    shares = mix.values() if isinstance(mix, Mapping) else [1]
    if not shares or any(type(share) not in (int, float) or not 0 < share <= MOST_SHARE for share in shares):
        raise ConfigError(f"{kind} = {mix!r} is not the name of a {kind}, or several with shares above 0")
