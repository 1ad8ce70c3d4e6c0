"""A scenario file: the settings of a run and of its phones; a key with a list makes the scenario a grid.

problem = "mnist/2nn"
phones = 100
uplink = ["float32", "eden-1bit"]          # two cells
cohort = { 1 = 12, 5 = 6 }                 # 12, and from round 5 on 6: a table, or text like "1:12,5:6" or "12,6"
epochs = [1, "5,1"]                        # a list is a grid: one epoch, or five in the first round and then one
seed = [0, 1, 2]                           # six
link = { "2g" = 0.2, "3g" = 0.5, "village" = 0.3 }
profiles = "my_links.toml"                 # where "village" stands, beside the scenario; or tables [profiles.village]
device = { "slow" = 0.5, "mid" = 0.5 }
dropout = 0.1                              # a tenth of those who are asked leave instead, and come back
set.shift = 1                              # a setting of the problem's own, by its name
plugin = ["mytask"]                        # modules of one's own with codec stages: a list that makes no grid
aggregate = "mytask:Krum"                  # and a rule of one's own
"""

import itertools
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import tomlkit

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.profile import Profile, find_profile, profile_from_flags
from featherfed.bandwidth_sim.units import parse_duration
from featherfed.by_round import by_round, is_by_round
from featherfed.edge_client.device import parse_device
from featherfed.errors import ConfigError
from featherfed.fl_bench.own_links import Tables, inline, links_of, tables_of, used_of
from featherfed.mixes import OTHER_STEP, check_mix, dealt
from featherfed.nearest import nearest
from featherfed.server.config import BY_ROUND, KNOWN, RunConfig, config_from
from featherfed.server.serving import check
from featherfed.simulation import Fleet
from featherfed.training_settings import flag

PHONE_KEYS = ("link", "profiles", "device", "bandwidth", "train", "dropout", "away", "as")
"""`link`, `device`: a name or shares of names; `profiles`: links of one's own (fl_bench/own_links.py); `as`: processes,
swarm or virtual; the others as for fl-edge."""
MIX = "one name, or names with their shares, or a list of such to try each"
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "link": ((str, dict), MIX),
    "profiles": ((dict,), "links of one's own"),
    "device": ((str, int, float, dict), MIX),
    "bandwidth": ((str,), "a rate with its unit, like '256kbps'"),
    "train": ((str,), "sgd or none"),
    "dropout": ((int, float), "a share from 0 to below 1, like 0.1"),
    "away": ((str,), "a time with its unit, like '60s'"),
    "as": ((str,), "processes, swarm or virtual"),
}
"""Of each of these keys: the types of a value, and what it should be."""
WAYS = ("processes", "swarm", "virtual")
SCENARIO = "scenario.toml"
"""The copy of the scenario beside its results."""
COMMAND = "command.txt"
"""The command line that gave them."""
LONGEST_NAME = 120
"""Letters of a cell's name, which is that of its folder: file systems take 255 bytes, and people fewer."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a scenario: `keys` are what varies, `config` is the server's, `phones` the phones' settings."""

    keys: dict[str, Any]
    config: RunConfig
    phones: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name: what varies, spelled so that a file system takes it; a long one ends in its digest."""
        text = "-".join(f"{key}={value}" for key, value in self.keys.items()) or "run"
        name = "".join(c if (c.isascii() and c.isalnum()) or c in "=-._" else "_" for c in text)
        if len(name) <= LONGEST_NAME:
            return name
        return f"{name[: LONGEST_NAME - 9]}-{blake2b(text.encode(), digest_size=4).hexdigest()}"

    def server_flags(self) -> list[str]:
        """Return the flags of `fl-server serve` for this cell."""
        return self.config.flags()

    def phone_flags(self, shard: int) -> list[str]:
        """Return the flags of `fl-edge run` for the phone of a shard."""
        flags = self.common_flags()
        for key, value in (("link", self.link_of(shard)), ("device", self.device_of(shard))):
            flags += [flag(key), value] if key in self.phones else []
        return flags

    def swarm_flags(self) -> list[str]:
        """Return the flags of `fl-edge swarm` for the same phones in few processes."""
        count = self.config.phones
        flags = ["--count", str(count), "--shard", f"0/{count}", *self.common_flags()]
        for key, deal in (("link", self.link_of), ("device", self.device_of)):
            if isinstance(self.phones.get(key), dict):
                flags += [f"{flag(key)}s", ",".join(deal(shard) for shard in range(count))]
            elif key in self.phones:
                flags += [flag(key), deal(0)]
        return flags

    def common_flags(self) -> list[str]:
        """Return what all phones of this cell are told."""
        own = ["--problem", self.config.problem] if self.trains else []
        own += [part for source in self.config.plugin for part in ("--plugin", source)]
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
        return dealt(self.devices, shard, step=OTHER_STEP)

    @property
    def devices(self) -> str | dict[str, float]:
        """What the phones compute with: a name, a time a step, or shares of such."""
        device = self.phones.get("device", "cpu")
        return device if isinstance(device, dict) else str(device)

    @property
    def own_links(self) -> Tables:
        """The tables of the links of one's own that phones of this cell are on."""
        tables: Tables = self.phones.get("profiles", {})
        return tables

    def fleet(self) -> Fleet:
        """Return the phones of this cell, to be simulated; raises `ConfigError` for a link that there is not."""
        mix = self.phones.get("link", "")
        profiles: dict[Profile | None, float] = {}
        own = links_of(self.own_links)
        for link, share in (mix if isinstance(mix, dict) else {mix: 1.0}).items():
            try:
                profiles[profile_from_flags(link=link or None, bandwidth=self.bandwidth, own=own)] = share
            except LinkConfigError as error:
                raise ConfigError(str(error)) from error
        return Fleet(
            links=profiles,
            devices=self.devices,
            trains=self.trains,
            dropout=self.dropout,
            away_s=self.away_s,
        )


def read_scenario(path: Path, *, way: str | None = None, changes: Sequence[str] = ()) -> list[Cell]:
    """Return the cells of a scenario file; `way` stands for its key `as`, and `changes` are lines in place of its own.

    Raises `ConfigError` for an unknown key, naming the nearest known one, and for a value that nothing could run with.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the scenario {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the scenario {path}: {error}") from error
    for line in changes:
        try:
            changed = tomllib.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"--set {line!r} is not a line of TOML: {error}; text stands in quotes, like --set 'uplink=\"float32\"'"
            ) from error
        if isinstance(changed.get("set"), dict) and isinstance(content.get("set"), dict):
            changed["set"] = content["set"] | changed["set"]
        content |= changed
    settings = {key.replace("-", "_"): value for key, value in content.items()}
    if way is not None:
        # What the file says is read again for its report, and has to make sense although nothing goes by it now.
        for written in settings["as"] if isinstance(settings.get("as"), list) else [settings.get("as", way)]:
            if written not in WAYS:
                raise ConfigError(f"{path}: as = {written!r} is not one of {', '.join(WAYS)}")
        settings["as"] = way
    known = {*KNOWN, *PHONE_KEYS}
    for key in settings:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{nearest(key, known)}")
    # A setting of the problem's own varies under its own name.
    given = settings.pop("set", {})
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: set = {given!r:.40} is not a table, like set.shift = 1")
    own = {f"set.{name}": value for name, value in given.items()}
    settings |= own
    if "profiles" in settings:
        try:
            settings["profiles"] = tables_of(settings["profiles"], path)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    # All of the plugins are imported in each run.
    varying = [key for key, value in settings.items() if isinstance(value, list) and key != "plugin"]
    if empty := next((key for key in varying if not settings[key]), None):
        raise ConfigError(f"{path}: {empty} is an empty list, which makes no run at all")
    cells = []
    try:
        for chosen in itertools.product(*(settings[key] for key in varying)):
            keys = {key: _one_text(key, value) for key, value in zip(varying, chosen, strict=True)}
            merged = {**settings, **keys}
            phones = {key: merged.pop(key) for key in PHONE_KEYS if key in merged}
            if own:
                merged["set"] = {key.removeprefix("set."): merged.pop(key) for key in own}
            config = config_from(merged)
            check(config)
            cell = Cell(keys, config, phones)
            _check_phones(cell)
            _keep_used(phones)
            cells.append(cell)
    except (ConfigError, LinkConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: two cells are the same: a list has a value twice")
    return cells


def _keep_used(phones: dict[str, Any]) -> None:
    """Leave a cell those links of one's own that its phones are on."""
    link = phones.get("link", ())
    used = used_of(phones.pop("profiles", {}), [link] if isinstance(link, str) else link)
    if used:
        phones["profiles"] = used


def _one_text(key: str, value: Any) -> Any:
    """Return a value of a grid; one by round as text, which names its cell."""
    return by_round(value).text() if key in BY_ROUND and is_by_round(value) else value


def changed_text(path: Path, changes: Sequence[str]) -> str:
    """Return a scenario's text with `changes` in place of its own lines, and links from a file in place of its name."""
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    for line in changes:
        changed = tomlkit.parse(line)
        if "set" in document and "set" in changed:
            document["set"].update(changed.pop("set"))
        document.update(changed)
    if isinstance(document.get("profiles"), str):
        document["profiles"] = inline(tables_of(document["profiles"], path))
    return tomlkit.dumps(document)


def _check_phones(cell: Cell) -> None:
    """Raise `ConfigError` or `LinkConfigError` for what `fl-edge` would refuse."""
    for key, value in cell.phones.items():
        kinds, what = KINDS[key]
        if type(value) not in kinds:
            raise ConfigError(f"{key} = {value!r} is not {what}")
    if cell.way not in WAYS:
        raise ConfigError(f"as = {cell.way!r} is not one of {', '.join(WAYS)}")
    if cell.phones.get("train", "sgd") not in ("sgd", "none"):
        raise ConfigError(f"train = {cell.phones['train']!r} is not sgd or none")
    if not 0 <= cell.dropout < 1:
        raise ConfigError(f"dropout = {cell.phones['dropout']!r} is not a share from 0 to below 1")
    try:
        away_s = cell.away_s
    except LinkConfigError as error:
        raise ConfigError(f"away: {error}") from error
    if away_s <= 0:
        raise ConfigError(f"away = {cell.phones['away']!r} is not a time above 0")
    own = links_of(cell.own_links)
    parsers: dict[str, Callable[[str], object]] = {"link": lambda name: find_profile(name, own), "device": parse_device}
    for key, parse in parsers.items():
        mix = cell.phones.get(key)
        if mix is None:
            continue
        check_mix(key, mix)
        for name in mix if isinstance(mix, dict) else [str(mix)]:
            try:
                parse(name)
            except (ConfigError, LinkConfigError) as error:
                raise ConfigError(f"{key} = {mix!r}: {error}") from error
    if cell.bandwidth is not None:
        try:
            profile_from_flags(bandwidth=cell.bandwidth)
        except LinkConfigError as error:
            raise ConfigError(f"bandwidth = {cell.bandwidth!r}: {error}") from error
