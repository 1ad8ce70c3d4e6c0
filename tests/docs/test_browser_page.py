"""docs/BROWSER.md says what the page's phone is and does."""

import json
import re
from pathlib import Path

from featherfed.codec.abilities import NUMBERED
from featherfed.codec.grammar import PRESETS
from featherfed.learning.chain import DRAWN, described
from featherfed.learning.models import build
from featherfed.problem_loading import load_problem

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "BROWSER.md").read_text(encoding="utf-8")
SPEC = (ROOT / "web" / "phone" / "codec" / "spec.ts").read_text(encoding="utf-8")


def able() -> dict[str, int]:
    """Return the stages that the phone of web/phone says that it has, with their bits."""
    rows = re.findall(r'^  (\w+): \["\w+", (\d+|null)\],$', SPEC, re.MULTILINE)
    assert {name for name, _ in rows} | {"lattice", "fresh"} == set(NUMBERED)
    return {name: int(bit) for name, bit in rows if bit != "null"}


def test_the_stages_of_the_page_are_those_of_the_phone_and_their_bits_the_servers() -> None:
    listed = re.findall(r"`(\w+)`", PAGE.split("Uplinks of")[1].split(", so every preset")[0])
    assert set(listed) == set(able())
    assert all(NUMBERED[bit] == name for name, bit in able().items())


def test_presets_without_the_stages_that_are_missing_are_all_that_it_can_do() -> None:
    missing = set(re.findall(r"`(\w+)`", PAGE.split("every preset without")[1].split("; downlinks")[0]))
    for spec in PRESETS.values():
        names = {part.partition("(")[0].strip() for part in spec.split("|")}
        assert (names <= set(able())) == (not names & missing), spec


def test_the_description_of_a_model_is_what_the_server_says() -> None:
    problem = load_problem("digits/tiny")
    assert json.loads(PAGE.split("```json")[1].split("```")[0]) == described(problem, build(problem, 0))


def test_problems_that_can_be_drawn_are_those_of_the_page() -> None:
    families = PAGE.split("`lite` and `tiny` of ")[1].split(".")[0]
    assert set(re.findall(r"`([\w-]+)`", families)) == set(DRAWN)
