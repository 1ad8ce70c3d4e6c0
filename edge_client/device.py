"""What a phone computes on: this machine's device, or the speed of an emulated one."""

import re

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.units import parse_duration
from featherfed.errors import ConfigError

STEP_S = {"slow": 0.2, "mid": 0.05, "fast": 0.01}
"""Seconds that a training step takes on emulated phones; no faster than this machine is."""
_NUMBER = re.compile(r"[0-9.]+")
COMPUTE = ("cpu", "cuda")


def parse_device(text: str) -> tuple[str, float]:
    """Return (torch device, seconds a training step), or raise `ConfigError`; a plain number is in seconds.

    >>> parse_device("cuda"), parse_device("mid"), parse_device("20ms"), parse_device("0.02")
    (('cuda', 0.0), ('cpu', 0.05), ('cpu', 0.02), ('cpu', 0.02))
    """
    if text in COMPUTE:
        return text, 0.0
    if text in STEP_S:
        return "cpu", STEP_S[text]
    try:
        return "cpu", parse_duration(f"{text}s" if _NUMBER.fullmatch(text) else text)
    except LinkConfigError as error:
        known = ", ".join([*COMPUTE, *STEP_S])
        raise ConfigError(
            f"device {text!r} is not one of {known}, and no time a training step like 0.02 or 20ms"
        ) from error
