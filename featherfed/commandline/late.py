"""A group of commands that are imported when they are asked for, by plain import statements."""

from collections.abc import Callable
from typing import Any

import click

from featherfed.commandline.program import Program
from featherfed.commandline.signals import loading


class LateGroup(Program):
    """A program with some commands that live in modules of their own."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._late: dict[str, Callable[[], click.Command]] = {}

    def late(self, load: Callable[[], click.Command]) -> Callable[[], click.Command]:
        """Add the command that `load` imports and returns, under the name of the function, with dashes.

        Its docstring is the command's line in the list of commands, which imports none of them.
        """
        self._late[load.__name__.replace("_", "-")] = load
        return load

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, imported or not."""
        return sorted([*super().list_commands(ctx), *self._late])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing it where it is late."""
        load = self._late.get(cmd_name)
        if load is None:
            return super().get_command(ctx, cmd_name)
        with loading():
            return load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, importing none of them."""
        lines = {name: command.get_short_help_str(1000) for name, command in self.commands.items()}
        lines |= {name: " ".join((load.__doc__ or "").split()) for name, load in self._late.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(lines.items()))
