import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from featherfed.fl_bench.cli import main

SMALL = 'phones = 1\nrounds = 1\nproblem = "digits"\n'


@pytest.mark.parametrize(
    ("text", "out_exists", "words"),
    [
        ("phnoes = 3", False, "unknown key 'phnoes'; did you mean 'phones'?"),
        ("phones = 0", False, "--phones 0 is below 1"),
        (SMALL, True, "exists; go on with --resume, or choose another --out"),
    ],
)
def test_scenario_that_can_not_run_is_one_sentence(text: str, out_exists: bool, words: str, tmp_path: Path) -> None:
    path, out = tmp_path / "mine.toml", tmp_path / "out"
    path.write_text(text)
    if out_exists:
        (out / "mine").mkdir(parents=True)
    result = CliRunner().invoke(main, ["run", str(path), "--out", str(out)])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert words in result.output.splitlines()[-1]


def test_missing_scenario_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", str(tmp_path / "nowhere.toml")])
    assert result.exit_code == 2
    assert "cannot read the scenario" in result.output


def test_every_command_has_its_help() -> None:
    commands = main.list_commands(None)  # type: ignore[arg-type]
    assert set(commands) == {"codec", "compare", "demo", "report", "run"}
    for command in commands:
        result = CliRunner().invoke(main, [command, "--help"])
        assert result.exit_code == 0, result.output
        assert "Usage: " in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_nothing_heavy_is_imported_for_help(arguments: list[str]) -> None:
    program = (
        "import sys; from featherfed.fl_bench.cli import main; main(sys.argv[1:], standalone_mode=False);"
        "heavy = {'torch', 'numpy', 'sklearn', 'sqlalchemy', 'matplotlib', 'asyncio', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_list_of_commands_says_what_each_says_of_itself() -> None:
    shown = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    with click.Context(main) as context:
        for name in main.list_commands(context):
            command = main.get_command(context, name)
            assert command is not None
            assert f" {name} {command.get_short_help_str(1000)}" in shown


def test_workers_of_a_run_on_real_processes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    result = CliRunner().invoke(main, ["run", str(path), "--workers", "2", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "--workers are for a simulated run: add --virtual, or leave them out" in result.output


def test_folder_that_cannot_be_made_has_another_way_out_than_the_same_one(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('problem = "digits/tiny"')
    (tmp_path / "file").touch()
    command = ["run", str(tmp_path / "s.toml"), "--virtual", "--out", str(tmp_path / "file" / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert result.output.strip().endswith("Not a directory; choose another --out")
