"""docs/ARCHITECTURE.md draws the machine that the code has, and names files that are there."""

import re
from pathlib import Path

from featherfed.server.rounds import round_machine

NAMED = r"`((?:server|edge_client|bandwidth_sim|gateway|featherfed|fl_bench|lab|tests|scenarios)/[\w/]+\.\w+)`"
ADDED_BY_EXAMPLES: set[str] = set()
"""What the reader of a worked example writes."""
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_round_machine_is_drawn_as_its_docstring_draws_it() -> None:
    drawn = TEXT.split("<!-- round machine: begin -->")[1].split("<!-- round machine: end -->")[0].strip().strip("`")
    lines = [line[4:] for line in (round_machine.__doc__ or "").splitlines() if line.startswith("    ")]
    assert drawn.strip("\n").splitlines() == lines


def test_files_and_names_of_the_pages_are_there() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(NAMED, text):
            assert path in ADDED_BY_EXAMPLES or (ROOT / path).exists(), f"{page.name} names {path}"
        for target in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
