"""What `mkdocs build` cannot know: pages that lie at the top of the checkout, and what featherfed calls public.

A hook of mkdocs (`make docs`); its functions are called by their names.
"""

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

import featherfed

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

CODE = re.compile(r"`[^`]+`")
ROOT = Path(__file__).parents[1]
FROM_THE_TOP = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
"""Pages that lie beside docs/, and what the site calls them."""
SUBJECTS = {
    "experiment": "Experiments",
    "local_training": "Experiments",
    "report": "Experiments",
    "problem": "Problems",
    "problem_loading": "Problems",
    "training_settings": "Settings",
    "rules": "Rules",
    "codec": "Codec stages",
    "errors": "Errors",
}
"""The first headings of API.md, by the module that a public name lives in; another module has one of its own name."""
INTERNAL = {
    "Examples": ("parts",),
    "Problem": ("measures", "settings_with", "shared_examples", "test_examples"),
    "Setting": ("check",),
    "Spent": ("sizes", "of", "in_row"),
    "Training": ("to_wire", "from_wire", "changed", "learning_rate", "in_round"),
}
"""What our other modules call of public classes, and no user: API.md leaves it out."""
PUBLIC, COMMANDS = "<!-- public names -->", "<!-- commands -->"
"""Where a page asks for what is written here."""


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the pages that lie at the top of the checkout."""
    from mkdocs.structure.files import File

    for source, name in FROM_THE_TOP.items():
        files.append(File.generated(config, name, content=moved((ROOT / source).read_text(encoding="utf-8"))))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Return a page as Python's markdown wants it, with what it asks for."""
    for mark, made in ((PUBLIC, public_names), (COMMANDS, commands)):
        if mark in markdown:
            markdown = markdown.replace(mark, made())
    return for_python_markdown(markdown)


def moved(text: str) -> str:
    """Return a page of the top as it would link from docs/."""
    return re.sub(r"\]\((?:docs/)?([\w./-]+)(#[\w-]+)?\)", _link, text)


def _link(match: re.Match[str]) -> str:
    page, anchor = match.groups(default="")
    return f"]({FROM_THE_TOP.get(page, page)}{anchor})"


def for_python_markdown(text: str) -> str:
    """Return a page without what GitHub's markdown needs and Python's shows.

    The comments between which our programs write go, because a table that touches one would be text, and so does the
    backslash before a bar in a table's code.
    """
    lines = re.sub(r"^<!-- [^\n]* -->$", "", text, flags=re.MULTILINE).split("\n")
    return "\n".join(CODE.sub(_bare, line) if line.startswith("|") else line for line in lines)


def _bare(code: re.Match[str]) -> str:
    return code[0].replace("\\|", "|")


def commands() -> str:
    """Return what the installed programs and their commands say of themselves, as they would with --help."""
    from featherfed.bandwidth_sim.cli import main as link
    from featherfed.commands.server import main as server
    from featherfed.edge_client.cli import main as edge
    from featherfed.fl_bench.cli import main as bench

    programs = {"fl-server": server, "fl-edge": edge, "fl-link": link, "fl-bench": bench}
    return "\n".join(
        line for name, program in programs.items() for line in _command(click.Context(program, info_name=name), 2)
    )


def _command(context: click.Context, depth: int) -> Iterator[str]:
    """Yield a command's heading, its words, its options as a table, and the same of its subcommands."""
    command = context.command
    yield f"{'#' * depth} {context.command_path}\n\n{_text(command.help or '')}\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _command(click.Context(child, info_name=name, parent=context), depth + 1)
        return
    yield f"```\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield "| option | |\n|---|---|"
    for flags, words in filter(None, (each.get_help_record(context) for each in command.get_params(context))):
        if words:  # an argument without words stands in the usage already
            yield f"| `{flags}` | {_text(words)} |"
    yield ""


def _text(words: str) -> str:
    """Return a help text with nothing in it that markdown would read."""
    return re.sub(r"([\\*_`|\[\]])", r"\\\1", html.escape(" ".join(words.split()), quote=False))


def public_names() -> str:
    """Return mkdocstrings' words for all that `featherfed.__all__` names, by subject."""
    by_subject: dict[str, list[str]] = {heading: [] for heading in SUBJECTS.values()}
    for name in featherfed.__all__:
        home = featherfed._HOME[name]
        module = home.partition(".")[0]
        heading = SUBJECTS.get(module, module.replace("_", " ").capitalize())
        by_subject.setdefault(heading, []).append(f"::: featherfed.{home}.{name}" + _without(INTERNAL.get(name, ())))
    return "\n\n".join(f"## {heading}\n\n" + "\n\n".join(names) for heading, names in by_subject.items() if names)


def _without(members: Sequence[str]) -> str:
    """Return mkdocstrings' options that leave some members out of a class, besides those that begin with `_`."""
    if not members:
        return ""
    return f'\n    options:\n      filters: ["!^_", "!^({"|".join(members)})$"]'
