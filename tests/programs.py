"""Programs that are not Python's: skip where they are missing, fail where CI says that they must be there."""

import os
import shutil
from pathlib import Path

import pytest


def program(name: str, way: str, *, at: Path | None = None) -> str:
    """Where a program lies, on the path or `at` a place; `way` is how to get it."""
    found = shutil.which(name, path=at)
    if found is None:
        if os.environ.get("FEATHERFED_REQUIRE_TOOLS"):
            pytest.fail(f"FEATHERFED_REQUIRE_TOOLS is set, but there is no {name}")
        pytest.skip(f"needs {name}: {way}")
    return found
