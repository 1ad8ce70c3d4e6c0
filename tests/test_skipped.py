import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_page(number):
    pytest.skip("needs chromium: apt-get install chromium")

@pytest.mark.skipif(True, reason="there is no GPU on this machine")
def test_gpu():
    pass

def test_runs():
    pass
"""


def test_a_run_ends_with_what_it_lacked_in_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text('import pytest\npytest.skip("needs ray", allow_module_level=True)\n')
    config = tmp_path / "pytest.ini"
    config.write_text("[pytest]\naddopts = -p tests.skipped\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(config), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    _, told = done.stdout.split(" 5 skipped on this machine ")
    assert [line for line in told.splitlines() if " × " in line] == [
        "3 × needs chromium: apt-get install chromium",
        "1 × needs ray",
        "1 × there is no GPU on this machine",
    ]
    assert "1 passed, 5 skipped" in told
