"""README.md quotes figures that stand in the pages that it links them to, and commands that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FIGURES = re.findall(r"\[([\d.]+(?: [kM]?B)?)\]\((docs/\w+\.md)\)", TEXT)


def test_there_are_figures() -> None:
    assert len(FIGURES) >= 8


@pytest.mark.parametrize(("figure", "page"), FIGURES)
def test_figure_stands_in_a_table_of_its_page(figure: str, page: str) -> None:
    cells = [
        cell.strip()
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
        for cell in line.strip("|").split("|")
    ]
    assert any(cell == figure or cell.startswith(f"{figure} ") for cell in cells)


@pytest.mark.parametrize(("page", "least"), [("README.md", 10), ("docs/PROBLEMS.md", 6), ("docs/RULES.md", 6)])
def test_flags_of_the_commands_are_known(page: str, least: int) -> None:
    from featherfed.bandwidth_sim.cli import main as link
    from featherfed.commands.server import main as server
    from featherfed.edge_client.cli import main as edge

    programs = {"fl-server": server, "fl-edge": edge, "fl-link": link}
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    seen = 0
    for program, command, rest in re.findall(r"(fl-(?:server|edge|link)) (\w+)((?:'[^'\n]*'|[^|#;&\n`])*)", text):
        known = {flag for option in programs[program].commands[command].params for flag in option.opts}
        for flag in re.findall(r"--[a-z-]+", rest):
            assert flag in known, f"{program} {command} {flag}"
            seen += 1
    assert seen >= least


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)`", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
