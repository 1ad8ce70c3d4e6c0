"""What two runs were told that is not the same: settings of the server, and of the phones."""

from collections.abc import Mapping
from typing import Any

from featherfed.fl_bench.scenario import PHONE_KEYS
from featherfed.server.config import KNOWN, RunConfig

UNTOLD = {"device": "cpu", "train": "sgd", "dropout": 0.0, "away": "60s", "as": "processes"}
"""What phones do that are told nothing."""


def differences(
    before: RunConfig, phones_before: Mapping[str, Any] | None, after: RunConfig, phones_after: Mapping[str, Any] | None
) -> dict[str, tuple[str, str]]:
    """Return by name the settings that differ, each as text before and after; all but the seed.

    Phones are None where nobody knows what they were told: those that a user started beside `fl-server serve`.
    """
    found = {}
    for name in KNOWN:
        if name != "seed" and before.spelled(name) != after.spelled(name):
            found[name] = str(before.spelled(name)), str(after.spelled(name))
    if phones_before is not None and phones_after is not None:
        for key in PHONE_KEYS:
            told = [phone_text(key, phones.get(key, UNTOLD.get(key))) for phones in (phones_before, phones_after)]
            if told[0] != told[1]:
                found[key] = told[0], told[1]
    return found


def phone_text(key: str, value: Any) -> str:
    """Return what phones were told by a key, for people: `barn 0.5, 3g 0.5`, or of links of one's own what they are."""
    if value is None:
        return "none"
    if not isinstance(value, Mapping):
        return str(value)
    if key == "profiles":
        return "; ".join(
            f"{name} = {', '.join(f'{each} {text}' for each, text in sorted(table.items()))}"
            for name, table in sorted(value.items())
        )
    return ", ".join(f"{name} {share:g}" for name, share in value.items())
