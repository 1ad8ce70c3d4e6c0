"""docs/DIFFERENTIAL_PRIVACY.md has the numbers and the sentences of the code."""

import re
from pathlib import Path

import click
import pytest

from featherfed.commands.server import main
from featherfed.edge_client.cli import main as edge
from featherfed.privacy.accounting import Price, apart, epsilon
from featherfed.privacy.budget import Account, Budget
from featherfed.privacy.noise import largest_product
from featherfed.server.privacy_plan import MOST_NOISE

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "DIFFERENTIAL_PRIVACY.md").read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")


@pytest.mark.parametrize(("row", "rounds"), [("a phone in 1 round", 1), ("in 3 rounds", 3), ("the same, had", 30)])
def test_the_table_of_prices_is_the_account_s(row: str, rounds: int) -> None:
    ((fine, coarse),) = re.findall(rf"^\| {row}[^|]*\| ([\d.]+) \| ([\d.]+) \|$", TEXT, re.MULTILINE)
    for value, near in ((fine, apart(2.0**30)), (coarse, None)):
        digits = len(value.partition(".")[2])
        assert f"{epsilon(rounds / 2, 1e-5, apart=near):.{digits}f}" == value


def test_the_sentence_of_the_pause_is_the_one_that_is_said() -> None:
    account = Account().charged([0], Price(0.5)).charged([0], Price(0.5))
    assert f'"{Budget(0.5, 1e-5, 100, 8.0).over(account, 20)}"' in FLAT


def test_the_limits_are_those_of_the_code() -> None:
    assert MOST_NOISE == 1000 and largest_product() == 2**25
    assert "needs Z above 1,000" in FLAT and "Z × C beyond 2²⁵" in FLAT


def test_the_flags_are_known() -> None:
    options = [*main.commands["serve"].params, *edge.commands["run"].params]
    known = {flag for option in options if isinstance(option, click.Option) for flag in option.opts}
    named = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", TEXT)) - {
        "--json",
        "--virtual",
        "--pfl",
        "--write",
        "--out",
        "--turns",
        "--sampling",
    }
    assert len(named) > 12 and named <= known


def test_the_tests_that_it_names_exist() -> None:
    for path in re.findall(r"`((?:tests|featherfed)/[\w/]+\.py)`", TEXT):
        assert (ROOT / path).exists(), path
