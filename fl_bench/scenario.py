"""A scenario file: the settings of a run and of its phones; a key with a list makes the scenario a grid.

model = "2nn"
phones = 100
uplink = ["float32", "eden-1bit"]          # two cells
seed = [0, 1, 2]                           # six
link = { "2g" = 0.2, "3g" = 0.5, "4g" = 0.3 }
"""

import itertools
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bandwidth_sim.errors import LinkConfigError
from bandwidth_sim.profile import profile_from_flags
from edge_client.device import parse_device
from featherfed.errors import ConfigError
from server.config import RunConfig, config_from, flag
from server.nearest import nearest
from server.serving import check

PHONE_KEYS = ("link", "bandwidth", "device", "as")
"""`link`: a name or shares of names; `bandwidth`, `device`: as for fl-edge; `as`: processes or swarm."""


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
        flags = []
        for key in ("bandwidth", "device"):
            if key in self.phones:
                flags += [flag(key), str(self.phones[key])]
        if "link" in self.phones:
            flags += ["--link", self.link_of(shard)]
        return flags

    def link_of(self, shard: int) -> str:
        """Return the link of a shard's phone: a mix is dealt so that every run of phones has about its shares."""
        mix = self.phones["link"]
        if isinstance(mix, str):
            return mix
        # The golden ratio spreads 0, 1, 2, … evenly over the unit interval.
        place, total = shard * 0.6180339887498949 % 1.0, sum(mix.values())
        for name, share in mix.items():
            place -= share / total
            if place < 0:
                return str(name)
        return str(name)


def read_scenario(path: Path) -> list[Cell]:
    """Return the cells of a scenario file; raises `ConfigError` for an unknown key, naming the nearest known one."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the scenario {path}: {error}") from error
    settings = {key.replace("-", "_"): value for key, value in content.items()}
    known = {field.name for field in fields(RunConfig)} | set(PHONE_KEYS)
    for key in settings:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{nearest(key, known)}")
    varying = [key for key, value in settings.items() if isinstance(value, list)]
    if empty := next((key for key in varying if not settings[key]), None):
        raise ConfigError(f"{path}: {empty} is an empty list, which makes no run at all")
    cells = []
    for chosen in itertools.product(*(settings[key] for key in varying)):
        keys = dict(zip(varying, chosen, strict=True))
        merged = {**settings, **keys}
        phones = {key: merged.pop(key) for key in PHONE_KEYS if key in merged}
        if merged.get("batch_size") == "all":
            merged["batch_size"] = 0
        try:
            config = config_from(merged)
            check(config)
            _check_phones(phones)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        cells.append(Cell(keys, config, phones))
    return cells


def _check_phones(phones: dict[str, Any]) -> None:
    """Raise `ConfigError` for settings that every phone would refuse when the server already waits for it."""
    if phones.get("as", "processes") not in ("processes", "swarm"):
        raise ConfigError(f"as = {phones['as']!r} is not processes or swarm")
    try:
        if "link" in phones:
            mix = phones["link"]
            shares = mix if isinstance(mix, dict) else {mix: 1}
            if not shares or any(type(share) not in (int, float) or not share > 0 for share in shares.values()):
                raise ConfigError(f"link = {mix!r} is not the name of a link, or several with shares above 0")
            for name in shares:
                profile_from_flags(link=str(name))
        if "bandwidth" in phones:
            profile_from_flags(bandwidth=str(phones["bandwidth"]))
    except LinkConfigError as error:
        raise ConfigError(str(error)) from error
    if "device" in phones:
        parse_device(str(phones["device"]))
