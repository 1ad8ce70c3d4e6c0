"""A program of ours: a group of commands that ends by one sentence, whatever stops it."""

import errno
import sys
from collections.abc import Sequence
from typing import Any

import click

from featherfed.commandline import signals, streams

INTERRUPTED = 128 + 2
"""The exit code of a command that Ctrl-C or SIGTERM ended, unless it knows a better one."""


class Program(click.Group):
    """A click group whose commands take Ctrl-C and SIGTERM alike, and lose a stream without a traceback."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        """Run as `click.Group.main` does."""
        if not extra.get("standalone_mode", True):
            return super().main(args, prog_name, *rest, **extra)
        with streams.guarded(), signals.interruptible():
            try:
                sys.exit(self._code(args, prog_name, *rest, **extra))
            except OSError as error:
                # click has dealt with a reader who had enough.
                sentence = streams.failure(error)
                if sentence is None:
                    raise
                click.echo(f"Error: {sentence}", err=True)
                sys.exit(1)
            except (click.Abort, KeyboardInterrupt):
                sys.exit(INTERRUPTED)

    def _code(self, *given: Any, **extra: Any) -> int:
        """Run, and return the exit code.

        Standalone, click would say "Aborted!" of a signal that comes while it reads the flags, and exit with 1.
        """
        try:
            code = super().main(*given, **{**extra, "standalone_mode": False})
        except click.ClickException as error:
            error.show()
            return error.exit_code
        return code if isinstance(code, int) else 0

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except OSError as error:
            # Where the way out is known, the command says it; this is for every other file, folder and socket.
            if error.filename is None and error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            what = f"cannot use {error.filename}: " if error.filename is not None else ""
            raise click.ClickException(f"{what}{error.strerror}") from error
