"""What lies in the folder where a command is typed is none of its business."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import program

pytestmark = pytest.mark.processes
NAMES = ("server", "edge_client", "gateway", "featherfed", "torch", "json", "socket", "random", "selectors")
SCENARIO = """
problem = "digits/tiny"
phones = 2
rounds = 1
train = "none"
"""


@pytest.fixture
def littered(tmp_path: Path) -> Path:
    """A folder with empty files that are called as modules are."""
    for name in NAMES:
        (tmp_path / f"{name}.py").touch()
    return tmp_path


def typed(folder: Path, name: str, *arguments: str) -> "subprocess.Popen[str]":
    """Type a command in a folder, as it is installed: `python -m` itself would look there."""
    command = [program(name, "pip install --editable .", at=Path(sys.executable).parent), *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize(("way", "jobs"), [("processes", 1), ("swarm", 1), ("virtual", 2)])
def test_a_bench_starts_its_own_modules_and_the_librarys(way: str, jobs: int, littered: Path) -> None:
    (littered / "grid.toml").write_text(f'as = "{way}"\nseed = {list(range(jobs))}\n{SCENARIO}')
    bench = typed(littered, "fl-bench", "run", "grid.toml", "--jobs", str(jobs))
    said, _ = bench.communicate(timeout=120)
    assert bench.returncode == 0, said
    assert len(list((littered / "results" / "grid").glob("*/done"))) == jobs


def test_a_tree_starts_its_own_gateways(littered: Path) -> None:
    flags = ["--gateways", "1", "--phones", "1", "--problem", "digits/tiny", "--no-dashboard"]
    tree = typed(littered, "fl-server", "tree", *flags, "--port", "0", "--gateway-port", "0")
    assert tree.stdout is not None
    told = next((line for line in tree.stdout if line.startswith("gateway 0")), "nothing of its gateway")
    tree.send_signal(signal.SIGINT)
    tree.communicate(timeout=60)
    assert "serves shards 0 to 0" in told
