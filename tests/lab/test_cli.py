import pytest
from click.testing import CliRunner

from lab.__main__ import main

COMMANDS = main.list_commands(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.output


def test_there_are_commands() -> None:
    assert {"agree", "chaos", "links", "peers", "results"} <= set(COMMANDS)
