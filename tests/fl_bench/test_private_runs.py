"""What the bench says of runs with differential privacy: their account, wherever it says how they did.

In a file of its own: nothing runs in virtual time behind a browser's event loop.
"""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from featherfed.fl_bench.cli import main

SCENARIO = """
problem = "digits/tiny"
phones = 3
cohort = 3
rounds = 2
epochs = 2
lr = 0.1
link = "3g"
uplink = "rotate | eden(1)"
dp = "central"
clip_norm = 1.0
noise_multiplier = [1.0, 2.0]
delta = 0.01
"""


def test_report_of_runs_with_differential_privacy_has_their_account(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")
    (tmp_path / "private.toml").write_text(SCENARIO)
    runner, folder = CliRunner(), tmp_path / "out"
    done = runner.invoke(main, ["run", str(tmp_path / "private.toml"), "--virtual", "--out", str(folder)])
    assert done.exit_code == 0, done.output
    assert re.search(r"round 2/2  accuracy \S+  ε \d", done.output)
    said = runner.invoke(main, ["report", str(folder / "private"), "--json"])
    rows = json.loads(said.stdout)
    strong, weak = sorted(row["epsilon"] for row in rows)
    assert 0 < strong < weak and {row["delta"] for row in rows} == {0.01}
    shown = runner.invoke(main, ["report", str(folder / "private"), "--out", str(tmp_path / "page")])
    assert f"{strong:.3g}" in shown.output and f"{weak:.3g}" in shown.output and " ε " in shown.output
    page = (tmp_path / "page" / "report.html").read_text()
    assert "best; ε" in page and f"; {strong:.3g}<" in page and f"; {weak:.3g}<" in page
    assert "epsilon" in (tmp_path / "page" / "rounds.csv").read_text().partition("\n")[0]
