"""Virtual time beside real processes."""

from pathlib import Path

import pytest

from lab.agree import run_both_ways


@pytest.mark.processes
def test_real_and_virtual_runs_agree(tmp_path: Path) -> None:
    file = tmp_path / "both.toml"
    text = (
        'problem = "digits"\nphones = 2\ncohort = 2\nrounds = 2\nlr = 0.05\nbatch_size = 40\n'
        'uplink = "rotate | eden(1)"\n'
    )
    file.write_text(text + 'downlink = "float32"\nlink = { "2g" = 0.5, "3g" = 0.5 }\ndevice = "200ms"\n')
    [both] = run_both_ways(file, tmp_path, None)
    # Two phones' updates of two rounds, and the models of the second: those of the first are drawn.
    assert both.transfers == 6
    assert both.differing == 0
    assert both.same_model
    # Never faster than link and device allow; how much slower depends on who else uses this machine. The table of
    # docs/BENCHMARKS.md has the deviation where nobody does.
    assert both.virtual_s > 10
    assert both.deviation > -0.05
    assert both.real_s - both.virtual_s < 60
