"""Quantities as people write them: `256kbps`, `32KiB/s`, `80ms`, `20kB`, `1%`."""

import re

from featherfed.bandwidth_sim.errors import LinkConfigError

_NUMBER = re.compile(r"^\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*$")

_BYTES = {
    "b": 1.0,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "kib": 1024.0,
    "mib": 1024.0**2,
    "gib": 1024.0**3,
}
_BITS_PER_S = {
    "bps": 1.0,
    "kbps": 1e3,
    "mbps": 1e6,
    "gbps": 1e9,
    "bit/s": 1.0,
    "kbit/s": 1e3,
    "mbit/s": 1e6,
    "gbit/s": 1e9,
}
_RATES = {unit: bits / 8 for unit, bits in _BITS_PER_S.items()} | {f"{unit}/s": size for unit, size in _BYTES.items()}
_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}
LARGEST = 1e15
"""Of any quantity: 30 million years, or a petabyte. More is a slip of the hand, and less than what sums can hold."""
SHOWN = 40
"""Letters of what was typed, in an error."""
_PERCENT = {"%": 0.01}


def _parse(text: str, units: dict[str, float], kind: str, base: str, example: str) -> float:
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    match = _NUMBER.match(text)
    if match is None:
        raise LinkConfigError(f"{kind} {shown!r} is not a number with a unit: write it like {example}")
    number, unit = float(match[1]), match[2]
    if not unit:
        raise LinkConfigError(f"{kind} {shown!r} has no unit: write it like {example}")
    if unit.lower() not in units:
        raise LinkConfigError(f"{kind} {shown!r} has the unknown unit {unit!r}: use one of {', '.join(units)}")
    quantity = number * units[unit.lower()]
    if not 0 <= quantity <= LARGEST:
        raise LinkConfigError(f"{kind} {shown!r} must be finite and not negative, at most {LARGEST:g} {base}")
    return quantity


def parse_rate(text: str) -> float:
    """Return bytes a second; `kbps` counts bits and `kB/s` bytes, both by thousands, `KiB/s` by 1024.

    Zero is allowed and means that nothing passes.

    >>> parse_rate("256kbps"), parse_rate("32KiB/s")
    (32000.0, 32768.0)
    """
    return _parse(text, _RATES, "rate", "bytes a second", "256kbps or 32KiB/s")


def parse_duration(text: str) -> float:
    """Return seconds.

    >>> parse_duration("80ms"), parse_duration("5min")
    (0.08, 300.0)
    """
    return _parse(text, _DURATIONS, "duration", "seconds", "80ms, 30s or 5min")


def parse_size(text: str) -> float:
    """Return bytes; `kB` is 1000 of them and `KiB` 1024.

    >>> parse_size("20kB")
    20000.0
    """
    return _parse(text, _BYTES, "size", "bytes", "20kB or 32KiB")


def parse_percent(text: str) -> float:
    """Return a fraction from 0 to 1.

    >>> parse_percent("1%")
    0.01
    """
    fraction = _parse(text, _PERCENT, "percentage", "of the whole", "1%")
    if fraction > 1:
        raise LinkConfigError(f"percentage {text!r} is over 100%")
    return fraction
