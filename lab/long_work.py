"""What long work is at: a bar with the time left, on a terminal and in a notebook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console

from featherfed.progress_bar import Bar

Tell = Callable[[str], None]
"""Says which step begins."""


@contextmanager
def long_work(steps: int, *, lines: bool = False, console: Console | None = None) -> Iterator[Tell]:
    """Give what tells of each step as it begins; the time left is by those that are done.

    Where there is no bar, `lines` on standard error say the same.
    """
    begun, last = 0, ""
    with Bar("step", steps, console=console) as bar:

        def tell(what: str) -> None:
            nonlocal begun, last
            last = what
            bar.show(begun, what)
            if lines and not bar.shown:
                click.echo(what, err=True)
            begun += 1

        yield tell
        bar.show(begun, last)
