"""What the site's hook writes: links from the top, markdown as Python reads it, public names and commands."""

import re
from pathlib import Path

import featherfed as ff
from lab.docs_site import FROM_THE_TOP, INTERNAL, commands, for_python_markdown, moved, public_names

ROOT = Path(__file__).parents[2]


def test_pages_of_the_top_link_to_pages_of_the_site() -> None:
    assert moved("[a](docs/CODECS.md#how-to), [b](CHANGELOG.md), [c](README.md)") == (
        "[a](CODECS.md#how-to), [b](CHANGELOG.md), [c](index.md)"
    )
    for source in FROM_THE_TOP:
        for target in re.findall(r"\]\(([\w./-]+)", moved((ROOT / source).read_text(encoding="utf-8"))):
            assert target in FROM_THE_TOP.values() or (ROOT / "docs" / target).exists(), f"{source}: {target}"


def test_links_into_the_world_and_figures_of_docs_stay() -> None:
    assert moved("[a](https://msgpack.org) ![b](docs/img/page-1920.png)") == (
        "[a](https://msgpack.org) ![b](img/page-1920.png)"
    )


def test_table_that_touches_a_comment_stands_alone_and_shows_no_backslash() -> None:
    text = "<!-- sizes: begin -->\n| `a \\| b` | c \\| d |\n`e \\| f`\n<!-- sizes: end -->"
    assert for_python_markdown(text) == "\n| `a | b` | c \\| d |\n`e \\| f`\n"


def test_every_public_name_is_on_the_page_once() -> None:
    names = re.findall(r"^::: featherfed\.[\w.]+\.(\w+)$", public_names(), re.MULTILINE)
    assert sorted(names) == sorted(ff.__all__)


def test_every_command_has_its_options_and_their_defaults() -> None:
    text = commands()
    for line in (
        "## fl-server",
        "### fl-server serve",
        "#### fl-server token add",
        "### fl-edge swarm",
        "### fl-link proxy",
        "### fl-bench compare",
        "fl-server report [OPTIONS] RUN",
    ):
        assert line in text.splitlines(), line
    assert re.search(r"^\| `--phones INTEGER` \| .*\\\[default: 10\\\] \|$", text, re.MULTILINE)
    assert "Sentinel" not in text


def test_what_only_our_modules_call_is_not_on_the_page() -> None:
    text = public_names()
    for name, members in INTERNAL.items():
        assert all(hasattr(getattr(ff, name), member) for member in members), name
        assert f'.{name}\n    options:\n      filters: ["!^_", "!^({"|".join(members)})$"]' in text
