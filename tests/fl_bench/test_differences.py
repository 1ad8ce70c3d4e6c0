"""What two runs were told that is not the same: refused by --resume, said by compare, a name of its own in reports."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featherfed.fl_bench.cli import main
from featherfed.fl_bench.results import read_runs
from featherfed.fl_bench.scenario import SCENARIO
from featherfed.server.storage.store import Store, put_value

RUN = 'problem = "digits/tiny"\nphones = 4\ncohort = 2\nrounds = 1\nepochs = 1\ntrain = "none"\n'


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rounds = 2", "rounds = 1 where the scenario has 2"),
        ('link = "3g"', "link = none where the scenario has 3g"),
        ("dropout = 0.5", "dropout = 0.0 where the scenario has 0.5"),
    ],
)
def test_resume_refuses_cells_that_were_run_with_other_settings(
    finished: tuple[Path, Path], line: str, words: str
) -> None:
    path, out = finished
    again = ["run", path, "--virtual", "--out", out, "--resume"]
    assert call(*again).exit_code == 0
    refused = call(*again, "--set", line)
    assert refused.exit_code == 2
    assert words in refused.output
    assert "remove that folder to have it run again" in refused.output
    # What is beside the results is what gave them.
    assert line not in (out / "rural" / SCENARIO).read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "rural.toml"
    path.write_text(RUN)
    assert call("run", path, "--virtual", "--out", folder / "out").exit_code == 0
    return path, folder / "out"


def test_cell_of_a_problem_that_has_another_model_now_is_refused_and_told_apart(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    """`mnist` was `mnist/lite` in an earlier release: half a grid of it is no result of today's `mnist`."""
    path, out = finished
    shutil.copytree(out, tmp_path / "out")
    store = Store(tmp_path / "out" / "rural" / "run" / "run.sqlite")
    store.apply([put_value("parameters", "29322")])
    store.close()
    refused = call("run", path, "--virtual", "--out", tmp_path / "out", "--resume")
    assert refused.exit_code == 2
    assert "is finished, with parameters = 29,322 where the scenario has 7,946: choose another" in refused.output
    folders = [tmp_path / "out" / "rural", out / "rural"]
    assert "not the same settings: parameters 29,322 → 7,946" in call("compare", *folders).stderr
    assert [each.name.split(", ")[1:] for each in read_runs(folders)] == [["parameters=29322"], ["parameters=7946"]]


def test_same_run_in_two_folders_has_their_names(finished: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = finished
    shutil.copytree(out, tmp_path / "again")
    names = [each.name for each in read_runs([out / "rural", tmp_path / "again" / "rural"])]
    assert [name.split(", ")[1] for name in names] == [str(out / "rural"), str(tmp_path / "again" / "rural")]


def test_grids_over_what_phones_are_told_have_a_name_each(tmp_path: Path) -> None:
    path = tmp_path / "rural.toml"
    path.write_text(RUN + 'bandwidth = ["64kbps", "1mbps"]\n')
    assert call("run", path, "--virtual", "--out", tmp_path / "out").exit_code == 0
    assert [strategy.name.split(", ")[1:] for strategy in read_runs([tmp_path / "out" / "rural"])] == [
        ["bandwidth=64kbps"], ["bandwidth=1mbps"],
    ]  # fmt: skip
