"""`python -m lab peers`: the same rounds in featherfed and its peers: one machine, one model, as many phones.

Flower is the peer on sockets; pfl-research and FedJAX simulate (`lab/peer_rounds.py`). Each run on sockets has a
network namespace of its own, where nothing else uses the loopback: bytes are the kernel's count of what it carried,
from before the phones start to the end of the run, handshakes, polls and logs included. Memory is the highest
proportional set size of the processes and all their children. Seconds are the median of the rounds.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from featherfed.fl_bench.codec_tables import markdown
from lab import peer_rounds
from lab.children import environment
from lab.documents import fill, kept_or_measured
from lab.environments import FEDJAX, FLOWER, PFL, SYSTEMS, System, check, commands_of
from lab.orders import LIMIT_S, PROGRAMS, Figures, Order

PARTS = ("off", "on", "simulation", "rounds", "secure")
UNMASKED = PARTS[:4]
"""What docs/PERFORMANCE.md has; docs/PRIVACY.md has the other."""
FLOAT32 = {"uplink": "float32", "downlink": "float32"}
LR = 0.1
ONE_BIT = {"uplink": "rotate | eden(1)", "downlink": "rotate | eden(1)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to compare: `phones` are real processes, all of them in every round; `simulated` are of the simulation."""

    problem: str
    data_dir: str | None
    phones: int
    rounds: int
    flower_rounds: int
    simulated: int
    cohort: int
    simulated_rounds: int
    epochs: int
    batch_size: int
    lr: float | None
    models: tuple[str, ...]
    turns: int

    def order(self, name: str, way: str, **more: Any) -> Order:
        """Return the order of a run with all phones in every round and no training."""
        return Order(
            **{
                "name": name, "way": way, "problem": self.problem, "phones": self.phones, "cohort": self.phones,
                "rounds": self.rounds, "train": False, "data_dir": self.data_dir,
                "epochs": self.epochs, "batch_size": self.batch_size, "lr": LR if self.lr is None else self.lr, **more,
            }
        )  # fmt: skip

    def of_model(self, model: str, programs: Mapping[str, str]) -> list[Order]:
        """Return the runs of a model in the part `rounds`."""

        def order(name: str, way: str, **more: Any) -> Order:
            settings = {**self._many, "lr": peer_rounds.LR if self.lr is None else self.lr, "evaluates": True}
            return self.order(name, way, **settings, **more)

        return peer_rounds.orders(model, order, programs)

    @property
    def _many(self) -> dict[str, Any]:
        return {"train": True, "phones": self.simulated, "cohort": self.cohort, "rounds": self.simulated_rounds}

    def orders(self, part: str, flower: str) -> list[Order]:
        """Return the runs of a part; the last one is Flower's."""
        if part == "off":
            return [
                self.order("featherfed, float32, a process a phone", "processes", **FLOAT32),
                self.order("featherfed, float32, a swarm", "swarm", **FLOAT32),
                self.order("featherfed, one bit both ways, a swarm", "swarm", **ONE_BIT),
                self.order("featherfed, as it comes, a swarm", "swarm"),
                self.order("Flower", "supernodes", rounds=self.flower_rounds, programs=flower),
            ]
        if part == "on":
            on = {"train": True, "rounds": self.flower_rounds}
            return [
                self.order("featherfed, float32, a process a phone", "processes", **FLOAT32, **on),
                self.order("featherfed, as it comes, a process a phone", "processes", **on),
                self.order("Flower", "supernodes", programs=flower, **on),
            ]
        if part == "secure":
            # Of ours what learns best and what is least; all of Flower's settings but the threshold are its defaults.
            return [
                self.order("featherfed, `--secure`, `secure-4bit`", "swarm", uplink="secure-4bit", secure=True),
                self.order("featherfed, `--secure`, `secure-small`", "swarm", uplink="secure-small", secure=True),
                self.order("Flower, SecAgg+", "supernodes", rounds=self.flower_rounds, programs=flower, secure=True),
            ]
        # With a worker a core, one has most of a cohort's phones and the other waits for it.
        workers = min(2 * (os.cpu_count() or 1), self.simulated)
        return [
            self.order("featherfed, float32, a swarm on sockets", "swarm", workers=workers, **FLOAT32, **self._many),
            self.order("featherfed, float32, virtual time, 1 worker", "ours", **FLOAT32, **self._many),
            self.order("featherfed, float32, virtual time, 2 workers", "ours", workers=2, **FLOAT32, **self._many),
            self.order("Flower, its simulation (Ray)", "simulation", programs=flower, **self._many),
        ]


def run(order: Order) -> Figures:
    """Return the figures of one run, where bytes are counted in a namespace of its own.

    Raises `LocalError` where it fails.
    """
    from featherfed.errors import LocalError

    command = [sys.executable, "-m", "featherfed.fl_bench.tether", "lab.peer_runs", json.dumps(asdict(order))]
    if order.way not in PROGRAMS:
        # A namespace of processes too: when its first one ends, or this one, so do Flower's and Ray's.
        namespaces = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*namespaces, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    # One thread a process, of torch too: more would only wait for each other.
    end, held = os.pipe()
    try:
        done = subprocess.run(
            command,
            stdin=end,
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * LIMIT_S,
            env=environment(OMP_NUM_THREADS="1"),
        )
    finally:
        os.close(end)
        os.close(held)
    if done.returncode:
        raise LocalError(f"{order.name}: {done.stderr.strip()[-600:]}")
    figures = Figures(**json.loads(done.stdout.splitlines()[-1]))
    if figures.updates != order.cohort * order.rounds:
        raise LocalError(
            f"{order.name}: {figures.updates} updates in {order.rounds} rounds of {order.cohort}, and its figures would"
            " not be comparable"
        )
    return figures


def compare(
    plan: Plan, parts: tuple[str, ...], where: Mapping[str, str], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Return the figures of each run; `where` has the folder of each peer's commands, or `auto`, by its flag.

    Raises `ConfigError` where there can be no namespace, or not the peers.
    """
    from featherfed.errors import ConfigError

    with_flower = set(parts) - {"rounds"}
    if with_flower and (os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip")):
        raise ConfigError(
            "peers counts bytes in network namespaces: it needs root, unshare and ip (iproute2); --part rounds does not"
        )
    needed: dict[System, list[str]] = {}
    if with_flower:
        trains = ["torch", "featherfed"] if {"on", "simulation"} & with_flower else []
        needed[FLOWER] = [*trains, *(["ray"] if "simulation" in parts else [])]
    if "rounds" in parts:
        needed |= {PFL: ["torch", "featherfed"], FEDJAX: ["featherfed"]}
    programs = {}
    for system, modules in needed.items():
        found = commands_of(system, where[system.flag], tell)
        check(system, found, modules)
        programs[system.flag] = str(found)
    result: dict[str, Any] = {"plan": asdict(plan)}
    for part in parts:
        if part == "rounds":
            result[part] = [row for model in plan.models for row in _rounds(plan, model, programs, tell)]
            continue
        result[part] = []
        for order in plan.orders(part, programs["flower"]):
            tell(f"{part}: {order.name}, {order.rounds} rounds")
            result[part].append(asdict(run(order)))
    return result


def _rounds(
    plan: Plan, model: str, programs: Mapping[str, str], tell: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Give a model's rows of the part `rounds`, once their accuracies agree."""
    orders = plan.of_model(model, programs)
    found: list[list[Figures]] = [[] for _ in orders]
    for _ in range(plan.turns):
        for order, figures in zip(orders, found, strict=True):
            tell(f"rounds, {model}: {order.name}, {order.rounds} rounds")
            figures.append(run(order))
    rows = [peer_rounds.medians(figures) for figures in found]
    peer_rounds.agreed(model, rows)
    yield from ({"model": model, **asdict(row)} for row in rows)


COLUMNS: dict[str, tuple[str, float, str]] = {
    "round_s": ("s a round", 1.0, ".3f"),
    "cpu_s": ("CPU s a round", 1.0, ".2f"),
    "bytes_of_a_round": ("kB a phone-round", 1e3, ".2f"),
    "bytes_per_phone_round": ("with what is sent once, kB", 1e3, ".2f"),
    "phone_bytes": ("MB a phone", 1e6, ".1f"),
    "server_bytes": ("MB the server", 1e6, ".0f"),
    "all_bytes": ("MB all processes", 1e6, ".0f"),
    "start_s": ("s to start", 1.0, ".1f"),
    "accuracy": ("accuracy", 1.0, ".4f"),
    "up_bytes": ("kB up a phone-round", 1e3, ".2f"),
}
REAL = ("round_s", "cpu_s", "bytes_of_a_round", "bytes_per_phone_round", "phone_bytes", "server_bytes", "start_s")
SHOWN = {
    "off": REAL,
    "on": (*REAL, "accuracy"),
    "simulation": ("round_s", "cpu_s", "all_bytes", "start_s", "accuracy"),
    "secure": ("up_bytes", "bytes_of_a_round", "bytes_per_phone_round", "round_s", "cpu_s"),
}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a table for each part that was measured; × is how many times Flower's figure is the run's."""
    made = {f"peers-{part}": _table(result[part], SHOWN[part]) for part in SHOWN if part in result}
    return made | ({"peers-rounds": peer_rounds.table(result["rounds"])} if "rounds" in result else {})


def _table(rows: list[dict[str, Any]], names: tuple[str, ...]) -> str:
    flower = rows[-1]
    cells = []
    for row in rows:
        cells.append([row["name"], str(row["rounds"])])
        for name in names:
            _, scale, form = COLUMNS[name]
            if not row[name]:
                cells[-1].append("–")
                continue
            ratio = f" ({flower[name] / row[name]:.1f} ×)" if name != "accuracy" and row is not flower else ""
            cells[-1].append(f"{row[name] / scale:{form}}{ratio}")
    return markdown(["system:", "rounds", *(COLUMNS[name][0] for name in names)], cells)


def _environments(command: Callable[..., None]) -> Callable[..., None]:
    for system in reversed(SYSTEMS.values()):
        option = click.option(
            f"--{system.flag}", default="auto", show_default=True, metavar="auto|FOLDER",
            help=f"Folder of {system.name}'s commands; auto makes an environment in ~/.cache/featherfed.",
        )  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS),
              help="Processes that train or not, Flower's simulation, rounds in other simulations, masks."
              "  [default: all but masks]")  # fmt: skip
@click.option("--problem", default="mnist/lite", show_default=True, help="One of ours that ends in logits.")
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--phones", default=10, show_default=True, type=click.IntRange(1), help="Real ones, all in every round.")
@click.option("--rounds", default=40, show_default=True, type=click.IntRange(2), help="Of featherfed without training.")
@click.option("--flower-rounds", default=3, show_default=True, type=click.IntRange(2),
              help="Of Flower's real processes, and of both with training.")  # fmt: skip
@click.option("--simulated", default=100, show_default=True, type=click.IntRange(1), help="Phones of the simulation.")
@click.option("--cohort", default=10, show_default=True, type=click.IntRange(1), help="Of them, in a round.")
@click.option("--simulated-rounds", default=10, show_default=True, type=click.IntRange(2), help="Of the simulation.")
@click.option("--epochs", default=1, show_default=True, type=click.IntRange(1), help="Passes over a phone's shard.")
@click.option("--batch-size", default=10, show_default=True, type=click.IntRange(1), help="Examples a step.")
@click.option("--lr", type=float, help=f"Learning rate on the phones.  [default: {LR}, of rounds {peer_rounds.LR}]")
@click.option(
    "--model", "models", multiple=True, default=peer_rounds.MODELS, help="Of rounds.  [default: 2nn lite cnn]"
)
@click.option(
    "--turns", default=1, show_default=True, type=click.IntRange(1), help="How often rounds are run, each row."
)
@_environments
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--from", "kept", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take figures from this JSON in place of measuring.")  # fmt: skip
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill tables.")
def peers(
    parts: tuple[str, ...],
    as_json: bool,
    kept: tuple[Path, ...],
    document: Path | None,
    flower: str,
    pfl: str,
    fedjax: str,
    **plan: Any,
) -> None:
    """Run the same rounds in featherfed and in its peers, side by side: on sockets, simulated, and under masks."""
    from featherfed.errors import ConfigError, FeatherfedError
    from featherfed.problem_loading import load_problem

    try:
        load_problem(plan["problem"])
        for model in plan["models"]:
            load_problem(f"{plan['problem'].partition('/')[0]}/{model}")
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if plan["cohort"] > plan["simulated"]:
        raise click.UsageError(f"--cohort {plan['cohort']} exceeds --simulated {plan['simulated']}")
    try:
        result = kept_or_measured(
            kept,
            lambda: compare(
                Plan(**plan),
                parts or UNMASKED,
                {"flower": flower, "pfl": pfl, "fedjax": fedjax},
                lambda line: click.echo(line, err=True),
            ),
        )
        made = tables(result)
        if document is not None:
            fill(document, made)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=1) if as_json else "\n\n".join(made.values()))
