"""A schedule of faults: a file, so that what went wrong once goes wrong again.

Faults wait for bytes, not for seconds: `at_bytes` counts what phones and server have sent each other over all
connections, so that a fast machine and a slow one kill at the same progress.
"""

import itertools
import random
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tomlkit

from featherfed.codec.downlink_grammar import parse_downlink, pipeline_of
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import ConfigError
from featherfed.learning.models import layout_of
from lab.chaos.tollgate import End
from lab.chaos.wiretap import Way

What = Literal["kill-server", "kill-phone", "rst", "fin", "silence"]
KINDS: tuple[What, ...] = ("kill-server", "kill-phone", "rst", "fin", "silence")
WAYS: tuple[Way, ...] = ("up", "down")
ENDS: tuple[End, ...] = ("phone", "server")


@dataclass(frozen=True, slots=True)
class Fault:
    """`kill -9` of the server or a phone, or an end of a phone's connection (`tollgate.Break` says which).

    It is due at `at_bytes`. All but `kill-server` then wait until `after_bytes` more of the phone's transfers `way`
    have passed, and strike in the middle of one.
    """

    at_bytes: int
    what: What
    phone: int = 0
    way: Way = "up"
    after_bytes: int = 0
    at: End = "phone"

    def fields(self) -> dict[str, Any]:
        """Return what says something."""
        content = asdict(self)
        if self.what in {"kill-phone", "silence"}:
            del content["at"]
        return content if self.what != "kill-server" else {"at_bytes": self.at_bytes, "what": self.what}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A run and its faults. `trainers` phones run real SGD, the others send seeded noise.

    `gateways` 0 is one server; `secure` sums under masks. `heartbeat`: silence is found in two.
    """

    phones: int
    rounds: int
    trainers: int
    seed: int
    problem: str
    uplink: str
    downlink: str
    bandwidth: str = ""
    mode: str = "sync"
    tls: bool = False
    gateways: int = 0
    secure: bool = False
    heartbeat: str = "60s"
    faults: tuple[Fault, ...]

    def count(self, what: What) -> int:
        """Return how many faults of a kind there are."""
        return sum(fault.what == what for fault in self.faults)

    def calm(self) -> "Schedule":
        """Return the same run without faults, as fast as the machine is, and so patient that none is made."""
        return replace(self, faults=(), bandwidth="", heartbeat="60s")

    def server_flags(self) -> list[str]:
        """Return the flags of `fl-server serve` or `tree`."""
        flags = ["--deadline", "600s", "--eval-every", str(self.rounds)]
        for name in ("phones", "rounds", "seed", "problem", "uplink", "downlink", "mode", "heartbeat"):
            flags += [f"--{name}", str(getattr(self, name))]
        if self.secure:
            # A phone that is killed is not out of its circle before it is back: the calm run's updates are to count.
            flags += ["--secure", "--unmask-deadline", "600s"]
        if self.gateways:
            flags += ["--gateways", str(self.gateways)]
        return [*flags, "--cohort", str(self.phones)]

    def to_toml(self) -> str:
        """Return the text of the file."""
        content = asdict(self)
        del content["faults"]
        document = tomlkit.document()
        document.update(content)
        table = tomlkit.array()
        table.multiline(True)
        for fault in self.faults:
            row = tomlkit.inline_table()
            row.update(fault.fields())
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
        known = fault.what in KINDS and fault.way in WAYS and fault.at in ENDS
        if not known or not 0 <= fault.phone < schedule.phones or fault.after_bytes < 0:
            raise ConfigError(f"{path}: {fault} is not one of {', '.join(KINDS)} of {schedule.phones} phones")
    return schedule


def plan(*, server_kills: int, phone_kills: int, cuts: int, **run: Any) -> Schedule:
    """Draw a schedule: places spread evenly over the bytes of a calm run, with their own seed's jitter.

    Cuts are of all three kinds in turn, at both ends and in both directions; half of the phones that are killed were
    receiving a model. A transfer is cut anywhere from its first byte to its last.
    """
    calm = Schedule(**run, faults=())
    generator = random.Random(calm.seed)
    sizes: dict[Way, int] = {"up": transfer_bytes(calm.uplink, calm.problem), "down": 0}
    sizes["down"] = transfer_bytes(calm.downlink, calm.problem, direction="downlink")
    # The model of the first round is drawn by the phones.
    total = calm.phones * (calm.rounds * sizes["up"] + (calm.rounds - 1) * sizes["down"])
    faults: list[Fault] = []

    def place(number: int, count: int) -> int:
        # Not in the last tenth: what falls due after the end, or waits for a transfer that never comes, never happens.
        return int(0.9 * total * (number + generator.random()) / count)

    for number in range(server_kills):
        faults.append(Fault(place(number, server_kills), "kill-server"))
    breaks: list[tuple[What, Way, End]] = [("kill-phone", WAYS[number % 2], "phone") for number in range(phone_kills)]
    kinds = itertools.cycle(itertools.product(WAYS, ENDS, ("rst", "fin", "silence")))
    for (way, at, what), _ in zip(kinds, range(cuts), strict=False):
        # Silence has no end of its own: it is both.
        breaks.append((what, way, "phone" if what == "silence" else at))  # type: ignore[arg-type]
    generator.shuffle(breaks)
    for number, (what, way, at) in enumerate(breaks):
        after = generator.randrange(sizes[way])
        faults.append(Fault(place(number, len(breaks)), what, generator.randrange(calm.phones), way, after, at))
    return Schedule(**run, faults=tuple(sorted(faults, key=lambda fault: fault.at_bytes)))


def transfer_bytes(spec: str, problem: str, *, direction: str = "uplink") -> int:
    """Return about how many bytes an update or a difference of a problem's model has."""
    layout = layout_of(problem)
    pipeline = Pipeline.parse(spec) if direction == "uplink" else pipeline_of(parse_downlink(spec))
    # There is no formula for a lattice: two bits a weight are what several rounds of learning change.
    return layout.size // 4 if pipeline is None else round(pipeline.theory_bytes(layout))
