"""The flags of `fl-server serve`: one for each field of the run's configuration, with its default from there."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import click

from featherfed.by_round import by_round, is_by_round
from featherfed.errors import ConfigError
from featherfed.training_settings import Training, Value, flag, parse_settings, range_of

Command = TypeVar("Command", bound=Callable[..., Any])

_WHOLE = re.compile(r"[1-9][0-9]{0,8}")


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


class Changing(click.ParamType[Any]):
    """A value, or one by round: `12,6` or `1:12,5:6`."""

    def __init__(self, kind: Any) -> None:
        self._kind = click.types.convert_type(kind)
        self.name = self._kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value, or the values by round."""
        if not is_by_round(value):
            return self._kind.convert(value, param, ctx)
        try:
            values = by_round(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)
        return values.map(lambda each: self._kind.convert(each, param, ctx))


_RUN: tuple[tuple[str, Any, str], ...] = (
    (
        "--problem",
        str,
        "Model, data, loss and metrics: your own, like mytask:problem or ./mytask.py:problem, or one of ours, like"
        " mnist/2nn, digits or cifar10 (fl-server models).  [default: mnist]",
    ),
    ("--partition", str, "iid, shards:N, dirichlet:A or quantity:A.  [default: iid]"),
    ("--phones", int, "Shards; the first round waits for so many phones.  [default: 10]"),
    (
        "--cohort",
        Changing(int),
        "Updates that are wanted in a round; by round like 12,6 or 1:12,5:6.  [default: 10, or --phones if less]",
    ),
    (
        "--connect",
        str,
        "always: phones stay connected. when-chosen: cohorts are drawn of all phones, there or not, and phones that are"
        " not asked are told when to come again.  [default: always]",
    ),
    ("--rounds", int, "Rounds to train.  [default: 20]"),
    ("--target", str, "End early when a metric, or loss, is as good: accuracy=0.97.  [default: all --rounds]"),
    ("--seed", int, "Decides everything random in a run: the same seed gives the same model.  [default: 0]"),
    (
        "--server-optimizer",
        str,
        "fedavg, fedavgm, fedadagrad, fedadam, fedyogi, or your own, like mytask:Lion.  [default: fedavg]",
    ),
    ("--server-lr", float, "Learning rate of the server's step.  [default: 1]"),
    (
        "--server-average",
        float,
        "Memory of a mean over the rounds' models, like 0.85, which is kept and evaluated; phones train the newest."
        " 0 keeps the newest.  [default: 0]",
    ),
    (
        "--uplink",
        Changing(str),
        "How updates are compressed: a codec spec or preset; with --secure it is secure-4bit.  [default: vertex-small]",
    ),
    (
        "--downlink",
        str,
        "How models come down: a codec spec or preset (a chain of differences), lattice(1) (one difference, whatever a"
        " phone missed), or fresh | SPEC (all that was learned, each round anew).  [default: lattice(1), or eden-1bit"
        " where each round asks all phones]",
    ),
    (
        "--leftover",
        str,
        "What becomes of what a coarse downlink leaves out: keep it for later (many small steps), drop it (few long"
        " ones), or mix with a share of the phones' view, like 0.5.  [default: keep]",
    ),
    (
        "--aggregate",
        str,
        "mean, or robust: median, trimmed-mean:0.1, geometric-median, krum:2 or multi-krum:2, which keep the round's"
        " updates decoded in memory; or your own, like mytask:Krum.  [default: mean]",
    ),
    (
        "--select",
        str,
        "Who is asked of those who are there: uniform, fast-links:0.5, rare-phones, or your own, like mytask:Charged."
        "  [default: uniform]",
    ),
    (
        "--clip-norm",
        float,
        "Longest L2 norm of an update; a longer one is scaled down. 0: no bound, or 3 where circles are summed."
        "  [default: 0]",
    ),
    ("--max-examples", int, "Refuse phones that claim to weigh more.  [default: the largest shard there can be]"),
    ("--mode", str, "sync, or async: a new version for every --buffer updates, whoever sends them.  [default: sync]"),
    ("--buffer", int, "Updates that make a version in mode async.  [default: --cohort]"),
    ("--deadline", Duration(), "Longest time of a round's attempt.  [default: 600s]"),
    ("--quorum", Changing(int), "Updates that close a round.  [default: --cohort]"),
    ("--over-select", Changing(float), "Ask so many times the cohort.  [default: 1]"),
    ("--min-updates", int, "Fewer at the deadline, and the round is tried again.  [default: 1]"),
    ("--max-retries", int, "Attempts after the first before the run pauses.  [default: 3]"),
    ("--heartbeat", Duration(), "Silence after which a phone is asked for a sign of life.  [default: 20s]"),
    ("--eval-every", int, "Rounds between evaluations.  [default: 1]"),
    (
        "--circle",
        int,
        "Phones whose updates are summed before they are decoded, with an uplink that ends in grid(R); the cohort is"
        " dealt into such circles.  [default: 20]",
    ),
    ("--slices", int, "Circles take turns at so many slices of the coordinates; 1: each sends all.  [default: 1]"),
    ("--unmask-deadline", Duration(), "How long a phone of a masked circle may take to answer.  [default: 30s]"),
    (
        "--dp",
        str,
        "Differential privacy for phones, by noise in each round's sum of clipped updates: central, the server's, or"
        " distributed, the phones' own under masks (with --secure); needs --clip-norm, and --noise-multiplier or"
        " --target-epsilon (docs/DIFFERENTIAL_PRIVACY.md).  [default: none]",
    ),
    ("--noise-multiplier", float, "Deviation of the noise, in clip norms.  [default: what --target-epsilon needs]"),
    ("--target-epsilon", float, "The ε that no phone's account exceeds: the run pauses before.  [default: 0, none]"),
    ("--delta", click.FloatRange(0, min_open=True), "The δ of that account.  [default: 1/(10 × --phones)]"),
    (
        "--participations",
        click.IntRange(1),
        "With --dp, so many rounds a phone is in at most.  [default: an even share of --rounds × --cohort]",
    ),
    (
        "--lost",
        float,
        "With --dp distributed, the share of a circle's phones without whose noise its sum is opened; if more are lost,"
        " it is not.  [default: 0.1]",
    ),
    (
        "--colluding",
        float,
        "With --dp distributed, the share of a circle's phones on whose noise nobody counts.  [default: 0.1]",
    ),
    ("--gateways", int, "Serve so many gateways, which serve the phones; 0 is none (docs/SCALING.md).  [default: 0]"),
)


class Named(click.ParamType[int]):
    """A whole number, or one of the names that some of its values have."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self.name = "|".join(["N", *names.values()])

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        for number, name in self._names.items():
            if value == name:
                return number
        text = str(value)
        if not _WHOLE.fullmatch(text):
            self.fail(f"{text[:40]!r} is not a number above 0, or {' or '.join(self._names.values())}", param, ctx)
        return int(text)


def _training_flags() -> list[tuple[str, Any, str]]:
    """Return the flags of local training, from its settings."""
    flags = []
    for each in fields(Training):
        limits = range_of(each)
        if limits is not None:
            names = limits.spelled or {}
            kind = Changing(Named(names) if names else each.type)
            default = names.get(each.default, f"{each.default:g}")
            flags.append((flag(each.name), kind, f"{limits.help}  [default: {default}]"))
    return flags


FLAGS = (*_RUN, *_training_flags())
"""(flag, type, help) of each; `--set` is one of its own."""


def _settings(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, Value] | None:
    """Return the settings by name; None where none was given."""
    try:
        return parse_settings(given) if given else None
    except ConfigError as error:
        raise click.UsageError(str(error), ctx=ctx) from error


def _sources(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> list[str] | None:
    """Return the plugins; None where none was given."""
    return list(given) or None


def run_flags(command: Command) -> Command:
    """Add the flags of a run; those that were not given are None."""
    command = click.option(
        "--set", callback=_settings, multiple=True, metavar="NAME=VALUE",
        help="A setting of the problem's own, like shift=1: pixels that our images are moved by at most.",
    )(command)  # fmt: skip
    command = click.option(
        "--plugin", callback=_sources, multiple=True, metavar="MODULE",
        help="Module or file of your own with codec stages, like mytask or ./mytask.py; phones need it too.",
    )(command)  # fmt: skip
    command = click.option(
        "--secure", is_flag=True, default=None,
        help="Sum updates under masks: the server learns sums over circles of phones, and no update (docs/PRIVACY.md).",
    )(command)  # fmt: skip
    for name, kind, text in reversed(FLAGS):
        command = click.option(name, type=kind, help=text)(command)
    return command
