"""A scenario file: the settings of a run and of its phones; a key with a list makes the scenario a grid.

problem = "mnist/2nn"
phones = 100
uplink = ["float32", "eden-1bit"]          # two cells
seed = [0, 1, 2]                           # six
link = { "2g" = 0.2, "3g" = 0.5, "4g" = 0.3 }
device = { "slow" = 0.5, "mid" = 0.5 }
dropout = 0.1                              # a tenth of those who are asked leave instead, and come back
set.shift = 1                              # a setting of the problem's own, by its name
"""

import itertools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tomlkit

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.profile import Profile, find_profile, profile_from_flags
from featherfed.bandwidth_sim.units import parse_duration
from featherfed.edge_client.device import parse_device
from featherfed.errors import ConfigError
from featherfed.mixes import OTHER_STEP, check_mix, dealt
from featherfed.nearest import nearest
from featherfed.server.config import RunConfig, config_from
from featherfed.server.serving import check
from featherfed.simulation import Fleet
from featherfed.training_settings import flag

PHONE_KEYS = ("link", "device", "bandwidth", "train", "dropout", "away", "as")
"""`link`, `device`: a name or shares of names; `as`: processes, swarm or virtual; the others as for fl-edge."""
WAYS = ("processes", "swarm", "virtual")
SCENARIO = "scenario.toml"
"""The copy of the scenario beside its results."""
COMMAND = "command.txt"
"""The command line that gave them."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a scenario: `keys` are what varies, `config` is the server's, `phones` the phones' settings."""

    keys: dict[str, Any]
    config: RunConfig
    phones: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name: what varies, spelled so that a file system takes it."""
        text = "-".join(f"{key}={value}" for key, value in self.keys.items()) or "run"
        return "".join(c if c.isalnum() or c in "=-._" else "_" for c in text)

    def server_flags(self) -> list[str]:
        """Return the flags of `fl-server serve` for this cell."""
        return self.config.flags()

    def phone_flags(self, shard: int) -> list[str]:
        """Return the flags of `fl-edge run` for the phone of a shard."""
        flags = self.common_flags()
        for key, value in (("link", self.link_of(shard)), ("device", self.device_of(shard))):
            flags += [flag(key), value] if key in self.phones else []
        return flags

    def common_flags(self) -> list[str]:
        """Return what all phones of this cell are told."""
        own = ["--problem", self.config.problem] if self.trains else []
        told = (
            (flag(key), str(self.phones[key]))
            for key in ("bandwidth", "train", "dropout", "away")
            if key in self.phones
        )
        return [*own, *(part for pair in told for part in pair)]

    @property
    def way(self) -> str:
        """How the cell is run: `processes`, `swarm` or `virtual`."""
        return str(self.phones.get("as", "processes"))

    @property
    def bandwidth(self) -> str | None:
        """The rate of all links, where one is given."""
        return str(self.phones["bandwidth"]) if "bandwidth" in self.phones else None

    @property
    def trains(self) -> bool:
        """Whether phones train, or send noise."""
        return bool(self.phones.get("train", "sgd") == "sgd")

    @property
    def dropout(self) -> float:
        """Probability that a phone leaves in a round in which it is asked."""
        return float(self.phones.get("dropout", 0.0))

    @property
    def away_s(self) -> float:
        """Mean time until a phone that left is back."""
        return parse_duration(str(self.phones.get("away", "60s")))

    def link_of(self, shard: int) -> str:
        """Return the link of a shard's phone, empty where there is none."""
        mix: str | dict[str, float] = self.phones.get("link", "")
        return dealt(mix, shard)

    def device_of(self, shard: int) -> str:
        """Return the device of a shard's phone."""
        mix: str | dict[str, float] = self.phones.get("device", "cpu")
        return dealt(mix, shard, step=OTHER_STEP)

    def fleet(self) -> Fleet:
        """Return the phones of this cell, to be simulated; raises `ConfigError` for a link that there is not."""
        mix = self.phones.get("link", "")
        profiles: dict[Profile | None, float] = {}
        for link, share in (mix if isinstance(mix, dict) else {mix: 1.0}).items():
            try:
                profiles[profile_from_flags(link=link or None, bandwidth=self.bandwidth)] = share
            except LinkConfigError as error:
                raise ConfigError(str(error)) from error
        return Fleet(
            links=profiles,
            devices=self.phones.get("device", "cpu"),
            trains=self.trains,
            dropout=self.dropout,
            away_s=self.away_s,
        )


def read_scenario(path: Path, *, way: str | None = None, changes: Sequence[str] = ()) -> list[Cell]:
    """Return the cells of a scenario file; `way` stands for its key `as`, and `changes` are lines in place of its own.

    Raises `ConfigError` for an unknown key, naming the nearest known one, and for a value that nothing could run with.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the scenario {path}: {error}") from error
    for line in changes:
        try:
            changed = tomllib.loads(line)
            own = {**content.get("set", {}), **changed.get("set", {})}
            content |= {**changed, **({"set": own} if own else {})}
        except ValueError as error:
            raise ConfigError(
                f"--set {line!r} is not a line of TOML: {error}; text stands in quotes, like --set 'uplink=\"float32\"'"
            ) from error
    settings = {key.replace("-", "_"): value for key, value in content.items()}
    if way is not None:
        settings["as"] = way
    known = {field.name for field in fields(RunConfig)} | set(PHONE_KEYS)
    for key in settings:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{nearest(key, known)}")
    # A setting of the problem's own varies under its own name.
    own = {f"set.{name}": value for name, value in settings.pop("set", {}).items()}
    settings |= own
    varying = [key for key, value in settings.items() if isinstance(value, list)]
    if empty := next((key for key in varying if not settings[key]), None):
        raise ConfigError(f"{path}: {empty} is an empty list, which makes no run at all")
    cells = []
    try:
        for chosen in itertools.product(*(settings[key] for key in varying)):
            keys = dict(zip(varying, chosen, strict=True))
            merged = {**settings, **keys}
            phones = {key: merged.pop(key) for key in PHONE_KEYS if key in merged}
            if own:
                merged["set"] = {key.removeprefix("set."): merged.pop(key) for key in own}
            if merged.get("batch_size") == "all":
                merged["batch_size"] = 0
            config = config_from(merged)
            check(config)
            cell = Cell(keys, config, phones)
            _check_phones(cell)
            cells.append(cell)
    except (ConfigError, LinkConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: two cells are the same: a list has a value twice")
    return cells


def changed_text(path: Path, changes: Sequence[str]) -> str:
    """Return a scenario's text with `changes` in place of its own lines."""
    document = tomlkit.parse(path.read_text())
    for line in changes:
        changed = tomlkit.parse(line)
        if "set" in document and "set" in changed:
            document["set"].update(changed.pop("set"))
        document.update(changed)
    return tomlkit.dumps(document)


def _check_phones(cell: Cell) -> None:
    """Raise `ConfigError` or `LinkConfigError` for what `fl-edge` would refuse."""
    if cell.way not in WAYS:
        raise ConfigError(f"as = {cell.way!r} is not one of {', '.join(WAYS)}")
    if cell.phones.get("train", "sgd") not in ("sgd", "none"):
        raise ConfigError(f"train = {cell.phones['train']!r} is not sgd or none")
    if not 0 <= cell.dropout < 1:
        raise ConfigError(f"dropout = {cell.dropout:g} is not a share from 0 to below 1")
    if cell.away_s <= 0:
        raise ConfigError(f"away = {cell.phones['away']!r} is not a time above 0")
    for key, parse in (("link", find_profile), ("device", parse_device)):
        mix = cell.phones.get(key)
        if mix is None:
            continue
        check_mix(key, mix)
        for name in mix if isinstance(mix, dict) else [mix]:
            parse(str(name))
    if cell.bandwidth is not None:
        profile_from_flags(bandwidth=cell.bandwidth)
