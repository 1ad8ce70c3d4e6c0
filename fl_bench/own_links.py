"""Links of a scenario's own: `profiles`, a TOML file beside it, or its tables in the scenario itself (docs/LINKS.md).

A file is read once, when the scenario is: what a cell runs with, and what stands beside its results, are its tables. So
results can be read, resumed and run again without the file, and say it when a link of the same name is another one.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import InlineTable

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.profile import Profile, profiles_of, read_tables
from featherfed.errors import ConfigError

Tables = Mapping[str, Mapping[str, str]]
"""Of each link by its name: the keys of docs/LINKS.md and their text."""


def tables_of(given: Any, scenario: Path) -> dict[str, dict[str, str]]:
    """Return the links that a scenario's `profiles` gives, checked; a path is relative to the scenario's folder.

    Raises `ConfigError` naming the file, the link and the key.
    """
    if not isinstance(given, str | dict):
        raise ConfigError(
            f"profiles = {given!r:.80} is neither a TOML file with links, like 'my_links.toml', nor tables like"
            " [profiles.village]; to try several links give link a list"
        )
    try:
        if isinstance(given, dict):
            where, tables = "profiles", given
        else:
            path = scenario.parent / given
            where, tables = f"profiles = {given!r}", read_tables(path)
        profiles_of(tables, where)
    except LinkConfigError as error:
        raise ConfigError(str(error)) from error
    except ValueError as error:  # a path with a NUL
        raise ConfigError(f"profiles = {given!r} is no path: {error}") from error
    return {name: dict(table) for name, table in tables.items()}


def links_of(tables: Tables) -> dict[str, Profile]:
    """Return the links that tables say, which have been checked."""
    return profiles_of(tables, "profiles")


def used_of(tables: Tables, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return those that are named: a link that nobody is on changes no result, nor does where a figure comes from."""
    named = sorted({*names} & {*tables})
    return {name: {key: text for key, text in tables[name].items() if key != "source"} for name in named}


def inline(tables: Tables) -> InlineTable:
    """Return tables as a value that stands on one line of a scenario."""
    outer = tomlkit.inline_table()
    for name, table in tables.items():
        inner = tomlkit.inline_table()
        inner.update(table)
        outer[name] = inner
    return outer


def text_of(tables: Tables) -> str:
    """Return tables as the text of a file for `--profiles`."""
    return tomlkit.dumps(tables)
