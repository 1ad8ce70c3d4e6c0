"""The attack of docs/PRIVACY.md works where nothing is masked, and finds nothing where something is."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.curious import curious, one_circle


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_update_lies_open_and_its_masked_upload_does_not(seed: int) -> None:
    found = one_circle(members=5, examples=1, seed=seed)
    labels, image = found["its update in the clear"]
    assert labels > 0.99
    assert image > 0.99
    # 784 pixels of noise: the correlation's deviation is 0.04.
    assert abs(found["its masked upload"][1]) < 0.3


def test_a_sum_of_single_examples_shows_one_of_them() -> None:
    assert one_circle(members=5, examples=1, seed=1)["the circle's sum"][1] > 0.99
    assert one_circle(members=10, examples=20, seed=1)["the circle's sum"][1] < 0.9


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- curious: begin -->\n<!-- curious: end -->\nafter\n")
    done = CliRunner().invoke(curious, ["--trials", "1", "--write", str(page)])
    assert done.exit_code == 0, done.output
    assert page.read_text().count("| 1, 5 |") == 1
