"""What the lab shows of its long work: a bar on a terminal, lines elsewhere where a command says them."""

import io

import pytest
from rich.console import Console

from lab.long_work import long_work


def test_a_terminal_shows_which_step_it_is_and_how_many_are_done() -> None:
    out = io.StringIO()
    with long_work(3, console=Console(file=out, force_terminal=True, width=120)) as tell:
        for what in ("first thing", "second thing", "third thing"):
            tell(what)
    text = out.getvalue()
    for part in ("0/3", "3/3", "third thing"):
        assert part in text


def test_elsewhere_only_lines_are_said_and_only_where_they_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    for lines in (True, False):
        with long_work(2, lines=lines, console=Console(file=io.StringIO(), force_terminal=False)) as tell:
            tell("first thing")
        seen = capsys.readouterr()
        assert seen.out == ""
        assert seen.err == ("first thing\n" if lines else "")


def test_an_error_in_a_step_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), long_work(2) as tell:
        tell("first thing")
        raise ZeroDivisionError
