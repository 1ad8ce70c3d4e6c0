"""`fl-server token`: give tokens out, list them, take them back; also while a server runs."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from featherfed.errors import ConfigError


@click.group()
def token() -> None:
    """Tokens: who may come in."""


def _file(command: Callable[..., Any]) -> Callable[..., Any]:
    option = click.option(
        "--tokens",
        "path",
        default="runs/tokens.json",
        show_default=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="The file that fl-server serve reads.",
    )
    return option(command)


@token.command()
@click.argument("name")
@_file
def add(name: str, path: Path) -> None:
    """Make a token for the phone NAME and print it; nobody can print it again. NAME* is for all that begin so."""
    from featherfed.server.door import tokens

    try:
        made = tokens.add(path, name)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    click.echo(made)
    whose = "FL_TOKEN" if name.endswith("*") else f"--name {name} and FL_TOKEN"
    click.echo(f"give it to fl-edge with {whose}; a server with {path} lets nobody in without one", err=True)


@token.command("list")
@_file
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_tokens(path: Path, as_json: bool) -> None:
    """List the names that have a token."""
    from featherfed.server.door import tokens

    try:
        known = list(tokens.read(path).values()) if os.path.lexists(path) else []
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps([asdict(each) for each in known], indent=1))
        return
    for each in known:
        click.echo(f"{each.name}  added {each.added}")
    if not known:
        click.echo(f"no tokens in {path}", err=True)


@token.command()
@click.argument("name")
@_file
def revoke(name: str, path: Path) -> None:
    """Take the token of the phone NAME back; running servers close its connection."""
    from featherfed.server.door import tokens

    try:
        tokens.revoke(path, name)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"phone {name!r} is let in no more", err=True)
