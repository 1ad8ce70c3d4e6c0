"""Node's test runner on the phone of `web/phone`, and a program of it beside a run."""

import os
import subprocess
from pathlib import Path

import pytest

from ..programs import program

WEB = Path(__file__).parents[2] / "web"


def node() -> str:
    """Return where Node lies; skip where it or what `make web` installs is missing."""
    found = program("node", "apt-get install nodejs npm")
    if not (WEB / "node_modules").is_dir():
        if os.environ.get("FEATHERFED_REQUIRE_TOOLS"):
            pytest.fail("FEATHERFED_REQUIRE_TOOLS is set, but web/node_modules is not there: make web")
        pytest.skip("needs the pinned tools: make web")
    return found


def build(folder: Path) -> None:
    """Bundle the phone's tests and its program for Node into a folder."""
    subprocess.run([node(), "build.mjs", "tests", str(folder)], cwd=WEB, check=True)


def run_tests(file: Path, **env: str) -> str:
    """Run the tests of a bundled file; return what the runner says, after it has checked that all passed."""
    done = subprocess.run(
        [node(), "--test", "--test-reporter=tap", str(file)],
        cwd=WEB, env=os.environ | env, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout
