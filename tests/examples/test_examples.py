"""The examples run as a reader starts them, in a small size."""

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
    assert not done.stderr, done.stderr
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


def test_examples_are_a_page_long() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 90, path.name
