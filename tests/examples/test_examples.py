"""The examples run as a reader starts them, in a small size."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def started(name: str, *arguments: str, folder: Path) -> str:
    """Run an example in a folder that it may write to; return what it prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    # That phones were lost, to liars here, is said where a warning is.
    assert not done.stderr or "RuntimeWarning: of " in done.stderr, done.stderr
    return done.stdout


@pytest.mark.processes
def test_clinics_learn_from_a_table(tmp_path: Path) -> None:
    printed = started("tabular.py", "15", folder=tmp_path)
    points = float(printed.split()[2])
    # Whoever says the mean of all patients is off by 66.
    assert points < 55, printed


@pytest.mark.processes
def test_strategies_are_compared_by_bytes_with_a_plot(tmp_path: Path) -> None:
    printed = started("compare_bytes.py", "1", folder=tmp_path)
    assert [line.split("  ")[0] for line in printed.splitlines()] == [
        "float32", "quantize(4)", "rotate | eden(1)", "vertex-small"
    ]  # fmt: skip
    assert (tmp_path / "compare_bytes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.processes
def test_own_images_are_learned_from_folders(tmp_path: Path) -> None:
    printed = started("own_images.py", "4", folder=tmp_path)
    assert len(list((tmp_path / "pictures" / "train" / "circle").glob("*.png"))) == 100
    # One of three classes is a third by chance.
    assert share(printed) > 40, printed


@pytest.mark.processes
def test_an_own_stage_keeps_what_stages_promise_and_costs_less_than_floats(tmp_path: Path) -> None:
    floats, _, natural = started("own_stage.py", "1", folder=tmp_path).splitlines()
    assert natural.startswith("natural | entropy")
    assert 8 * bytes_up(natural) < bytes_up(floats)


@pytest.mark.processes
def test_liars_ruin_the_mean_and_not_the_rule(tmp_path: Path) -> None:
    mean, median, clipping = started("own_rule.py", "6", folder=tmp_path).splitlines()
    assert "CenteredClipping" in clipping
    assert share(mean) < 60 < 80 < min(share(median), share(clipping)), (mean, median, clipping)


@pytest.mark.processes
def test_adapters_alone_travel(tmp_path: Path) -> None:
    whole, adapters = started("adapters.py", "2", folder=tmp_path).splitlines()
    assert adapters.startswith("adapters")
    assert 10 * bytes_up(adapters) < bytes_up(whole)
    assert share(adapters) > 50, adapters


def bytes_up(line: str) -> int:
    """Return the bytes up that a line of an example says."""
    found = re.search(r"([\d,]+) bytes up", line)
    assert found, line
    return int(found[1].replace(",", ""))


def share(line: str) -> float:
    """Return the accuracy that a line of an example says, in percent."""
    found = re.search(r"accuracy ([\d.]+)%", line)
    assert found, line
    return float(found[1])


def test_examples_are_a_page_long() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 90, path.name
