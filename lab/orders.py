"""What `python -m lab peers` runs, and what it finds: an order for each row, and its figures."""

from dataclasses import dataclass
from statistics import median

from lab.watch import Watch

LIMIT_S = 900.0
"""No run takes so long."""
PROGRAMS = {
    "ours": "lab.rounds_app.ours",
    "plain": "lab.rounds_app.plain",
    "pfl": "lab.rounds_app.pfl_research",
    "fedjax": "lab.rounds_app.fed_jax",
}
"""Ways of an order that are one program each, which simulates all phones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run. `way`: `processes` or `swarm` of ours, `supernodes` or `simulation` of Flower, or one of `PROGRAMS`.

    `uplink` and `downlink` are given to our side if there is something in them. `workers` are the processes of a swarm
    (0: as many as it takes), of our simulation, or of a peer's; `programs` is the folder of a peer's commands.
    `secure`: one circle of all phones here, SecAgg+ in Flower, with the same threshold. `evaluates`: after each round,
    which its seconds include, in place of after the last.
    """

    name: str
    way: str
    problem: str
    phones: int
    cohort: int
    rounds: int
    train: bool
    data_dir: str | None
    epochs: int
    batch_size: int
    lr: float
    uplink: str = ""
    downlink: str = ""
    workers: int = 0
    programs: str = ""
    secure: bool = False
    evaluates: bool = False

    @property
    def on_sockets(self) -> bool:
        """Whether its bytes are counted."""
        return self.way not in ("simulation", *PROGRAMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run cost.

    `bytes_per_phone_round`: all that the loopback carried, by the phones of all rounds; `bytes_of_a_round`: from the
    end of the first round to that of the last, likewise. `start_s`: until all phones are there, or the rounds begin.
    `cpu_s`: processor time of all processes in a round, between the same moments. Memory is of a phone, of the server,
    and of all together; None where there is no such thing.
    """

    name: str
    rounds: int
    updates: int
    round_s: float
    cpu_s: float
    start_s: float
    bytes_per_phone_round: float | None
    bytes_of_a_round: float | None
    phone_bytes: float | None
    server_bytes: float | None
    all_bytes: float
    accuracy: float | None
    up_bytes: float | None = None
    """Of a phone and round, of `secure` runs: what our ledger has up, and the content of Flower's answers."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of a round: when, and what the loopback had carried."""

    at_s: float
    bytes: int


def figures_of(
    order: Order, *, seconds: list[float], updates: int, ends: list[Mark], start_s: float, accuracy: float | None,
    server: Watch, phones: Watch | None = None, carried: int = 0, up_bytes: float | None = None,
) -> Figures:  # fmt: skip
    """Return what a run cost, whose processes were watched: the server, and phones where they are others.

    `seconds` are those of rounds, `ends` the ends of some; between the first and the last of them it is looked at.
    """
    first, last, later = ends[0], ends[-1], len(ends) - 1
    watched = [server, *([phones] if phones else [])]
    return Figures(
        name=order.name,
        rounds=order.rounds,
        updates=updates,
        round_s=median(seconds),
        cpu_s=sum(watch.cpu_s(first.at_s, last.at_s) for watch in watched) / later,
        start_s=start_s,
        bytes_per_phone_round=carried / (order.cohort * order.rounds) if order.on_sockets else None,
        bytes_of_a_round=(last.bytes - first.bytes) / later / order.cohort if order.on_sockets else None,
        phone_bytes=phones.bytes / order.phones if phones and order.on_sockets else None,
        server_bytes=server.bytes if order.on_sockets else None,
        all_bytes=sum(watch.bytes for watch in watched),
        accuracy=accuracy,
        up_bytes=up_bytes,
    )
