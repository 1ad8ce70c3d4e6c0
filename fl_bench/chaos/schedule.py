"""A schedule of faults: a file, so that what went wrong once goes wrong again.

Faults wait for bytes, not for seconds: `at_bytes` counts what phones have sent to the server over all connections, so
that a fast machine and a slow one kill at the same progress.
"""

import random
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tomlkit

from featherfed.codec.pipeline import Pipeline
from featherfed.errors import ConfigError

What = Literal["kill-server", "kill-phone", "drop"]
KINDS: tuple[What, ...] = ("kill-server", "kill-phone", "drop")


@dataclass(frozen=True, slots=True)
class Fault:
    """`kill -9` of the server or a phone, or a reset of a phone's connection."""

    at_bytes: int
    what: What
    phone: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A run and its faults. `trainers` phones run real SGD on the digits, the others send seeded noise."""

    phones: int
    rounds: int
    trainers: int
    seed: int
    problem: str
    uplink: str
    downlink: str
    bandwidth: str
    mode: str
    faults: tuple[Fault, ...]

    def count(self, what: What) -> int:
        """Return how many faults of a kind there are."""
        return sum(fault.what == what for fault in self.faults)

    def calm(self) -> "Schedule":
        """Return the same run without faults, as fast as the machine is."""
        return replace(self, faults=(), bandwidth="")

    def server_flags(self) -> list[str]:
        """Return the flags of `fl-server serve`."""
        flags = ["--deadline", "600s", "--heartbeat", "60s", "--eval-every", str(self.rounds)]
        for name in ("phones", "rounds", "seed", "problem", "uplink", "downlink", "mode"):
            flags += [f"--{name}", str(getattr(self, name))]
        return [*flags, "--cohort", str(self.phones)]

    def to_toml(self) -> str:
        """Return the text of the file."""
        content = asdict(self)
        faults = content.pop("faults")
        document = tomlkit.document()
        document.update(content)
        table = tomlkit.array()
        table.multiline(True)
        for fault in faults:
            row = tomlkit.inline_table()
            row.update(fault if fault["what"] != "kill-server" else {k: fault[k] for k in ("at_bytes", "what")})
            table.append(row)
        document["faults"] = table
        return tomlkit.dumps(document)


def read_schedule(path: Path) -> Schedule:
    """Read a schedule; raises `ConfigError` for a file that is none."""
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text())
        faults = tuple(Fault(**fault) for fault in content.pop("faults"))
        schedule = Schedule(**content, faults=faults)
    except (OSError, tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise ConfigError(f"cannot read the schedule {path}: {error}") from error
    for fault in faults:
        if fault.what not in KINDS or not 0 <= fault.phone < schedule.phones:
            raise ConfigError(f"{path}: {fault} is not one of {', '.join(KINDS)} of {schedule.phones} phones")
    return schedule


def plan(*, server_kills: int, phone_kills: int, drops: int, **run: Any) -> Schedule:
    """Draw a schedule: places spread evenly over the bytes of a calm run, with their own seed's jitter."""
    calm = Schedule(**run, faults=())
    generator = random.Random(calm.seed)
    from featherfed.learning.models import layout_of

    size = Pipeline.parse(calm.uplink).theory_bytes(layout_of(calm.problem))
    total = calm.phones * calm.rounds * size
    faults = []
    for what, count in (("kill-server", server_kills), ("kill-phone", phone_kills), ("drop", drops)):
        for number in range(count):
            # Not in the last hundredth: what falls due after the end never happens.
            place = 0.99 * total * (number + generator.random()) / count
            phone = 0 if what == "kill-server" else generator.randrange(calm.phones)
            faults.append(Fault(int(place), what, phone))  # type: ignore[arg-type]
    return Schedule(**run, faults=tuple(sorted(faults, key=lambda fault: fault.at_bytes)))
