"""The flags of `fl-server serve`: one for each field of the run's configuration, with its default from there."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_WHOLE = re.compile(r"[1-9][0-9]{0,8}")


class BatchSize(click.ParamType[int]):
    """A number of examples, or `all`."""

    name = "N|all"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; 0 stands for all."""
        if value == "all":
            return 0
        text = str(value)
        if not _WHOLE.fullmatch(text):
            self.fail(f"{text[:40]!r} is not a number above 0, or all", param, ctx)
        return int(text)


class Duration(click.ParamType[float]):
    """A time with its unit."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        text = str(value)
        for unit, scale in (("ms", 1e-3), ("min", 60.0), ("h", 3600.0), ("s", 1.0)):
            number = text.removesuffix(unit)
            if number != text:
                try:
                    return float(number) * scale
                except ValueError:
                    break
        self.fail(f"{text!r} is not a time with a unit, like 500ms, 30s or 5min", param, ctx)


FLAGS: tuple[tuple[str, Any, str], ...] = (
    ("--model", str, "mlp, 2nn, cnn, lite or tiny.  [default: lite]"),
    ("--data", str, "mnist, digits, or mnist-tuning: MNIST's last training images as test set.  [default: mnist]"),
    ("--partition", str, "iid, shards:N, dirichlet:A or quantity:A.  [default: iid]"),
    ("--phones", int, "Shards; the first round waits for so many phones.  [default: 10]"),
    ("--cohort", int, "Updates that are wanted in a round.  [default: 10, or --phones if less]"),
    ("--rounds", int, "Rounds to train.  [default: 20]"),
    ("--target-accuracy", float, "End early when this is reached, 0 to 1.  [default: 1]"),
    ("--seed", int, "Of all that is random.  [default: 0]"),
    ("--epochs", int, "Passes of a phone over its shard in a round.  [default: 1]"),
    ("--batch-size", BatchSize(), "Examples a step, or all.  [default: 10]"),
    ("--lr", float, "Learning rate on the phones.  [default: 0.1]"),
    ("--lr-decay", float, "Factor of the learning rate after each round.  [default: 1]"),
    ("--momentum", float, "Of the phones' SGD.  [default: 0]"),
    ("--weight-decay", float, "Of the phones' SGD.  [default: 0]"),
    ("--prox-mu", float, "FedProx's proximal term.  [default: 0]"),
    ("--shift", int, "Pixels that a training image is moved by at most, anew in each epoch.  [default: 0]"),
    ("--server-optimizer", str, "fedavg, fedavgm, fedadam or fedyogi.  [default: fedavg]"),
    ("--server-lr", float, "Learning rate of the server's step.  [default: 1]"),
    (
        "--server-average",
        float,
        "Memory of a mean over the rounds' models, like 0.85, which is kept and evaluated; phones train the newest."
        " 0 keeps the newest.  [default: 0]",
    ),
    ("--uplink", str, "How updates are compressed: a codec spec or preset.  [default: vertex-small]"),
    ("--downlink", str, "How models are compressed, alike.  [default: eden-1bit]"),
    (
        "--aggregate",
        str,
        "mean, or robust: median or trimmed-mean:0.1, which keep the round's updates decoded in"
        " memory.  [default: mean]",
    ),
    ("--clip-norm", float, "Longest L2 norm of an update; a longer one is scaled down.  [default: 0, no bound]"),
    ("--max-examples", int, "Refuse phones that claim to weigh more.  [default: the largest shard there can be]"),
    ("--mode", str, "sync, or async: a new version for every --buffer updates, whoever sends them.  [default: sync]"),
    ("--buffer", int, "Updates that make a version in mode async.  [default: --cohort]"),
    ("--deadline", Duration(), "Longest time of a round's attempt.  [default: 600s]"),
    ("--quorum", int, "Updates that close a round.  [default: --cohort]"),
    ("--over-select", float, "Ask so many times the cohort.  [default: 1]"),
    ("--min-updates", int, "Fewer at the deadline, and the round is tried again.  [default: 1]"),
    ("--max-retries", int, "Attempts after the first before the run pauses.  [default: 3]"),
    ("--heartbeat", Duration(), "Silence after which a phone is asked for a sign of life.  [default: 20s]"),
    ("--eval-every", int, "Rounds between evaluations.  [default: 1]"),
    ("--gateways", int, "Serve so many gateways, which serve the phones; 0 is none (docs/SCALING.md).  [default: 0]"),
)


def run_flags(command: Command) -> Command:
    """Add the flags of a run; those that were not given are None."""
    for flag, kind, text in reversed(FLAGS):
        command = click.option(flag, type=kind, help=text)(command)
    return command
