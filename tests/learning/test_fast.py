"""Whether numba is there, does its work or fails, a run trains, says so once, and has one kind of passes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import featherfed as ff
from featherfed.codec.pipeline import Pipeline
from featherfed.compiling.loading import say
from featherfed.edge_client.training_host import HostPlan, TrainingHost
from featherfed.errors import ConfigError, DivergedError
from featherfed.learning import fast
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build, layout
from featherfed.learning.passes import passes_for
from featherfed.learning.training import Trainer
from featherfed.problem import Examples, Place
from featherfed.randomness import RoundKey
from featherfed.training_settings import Training
from tests.layouts import digits, weights_of

SAYS = "from featherfed.learning import fast; print(fast.passes()); fast.passes()"
HERE = Path(__file__).parents[2]


def asked(*more: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Ask a fresh process what it trains by."""
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(HERE), *more]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", SAYS], env=known | environment, capture_output=True, text=True, timeout=280, check=True
    )  # fmt: skip


def numba() -> None:
    pytest.importorskip("numba", reason="needs numba: pip install 'featherfed[fast]'")


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A folder with a numba that is there and cannot be imported."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "numba.py").write_text("raise ImportError('its library is of\\nanother age')\n")
    return tmp_path / "broken"


def test_without_numba_torch_trains_and_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['numba'] = None\n")
    # A module that is None is one that is not there; find_spec says so by an error.
    answer = asked(str(tmp_path))
    assert (answer.stdout, answer.stderr) == ("torch\n", "")


def test_numba_that_cannot_be_imported_is_said_in_one_sentence(module: Path) -> None:
    answer = asked(str(module))
    assert answer.stdout == "torch\n"
    assert answer.stderr == (
        "featherfed: phones train without compiled passes, since numba fails: ImportError: its library is of another"
        " age; FL_FAST=0 does without it\n"
    )


def test_full_disk_is_said_with_the_way_out(module: Path) -> None:
    (module / "numba.py").write_text("import errno\nraise OSError(errno.ENOSPC, 'No space left on device')\n")
    answer = asked(str(module))
    assert answer.stdout == "torch\n"
    assert answer.stderr == (
        "featherfed: phones train without compiled passes, since there is no room to keep them: name another folder by"
        " FL_CACHE_DIR; FL_FAST=0 does without them\n"
    )


@pytest.mark.parametrize("word", ["0", "False"])
def test_numba_can_be_left_out(module: Path, word: str) -> None:
    answer = asked(str(module), FL_FAST=word)
    assert (answer.stdout, answer.stderr) == ("torch\n", "")


def test_worker_of_a_run_that_trains_by_torch_does_so_and_does_not_try_numba(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fast, "_agreed", None)
    monkeypatch.setattr(fast, "_loaded", lambda: pytest.fail("it looks for numba"))
    TrainingHost(HostPlan(problem="digits/tiny", plugins=(), data_dir=None, passes="torch"))
    assert fast.passes() == "torch"


def test_worker_without_the_passes_of_its_run_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "_agreed", None)
    monkeypatch.setattr(fast, "_loaded", lambda: "torch")
    with pytest.raises(ConfigError, match=r"the run's phones train by numba 9\.9, and this process has torch"):
        TrainingHost(HostPlan(problem="digits/tiny", plugins=(), data_dir=None, passes="numba 9.9"))


def test_model_for_which_numba_fails_trains_by_torch_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numba()
    from featherfed.learning.compiled import compiled_passes

    def fails(*arguments: Any) -> None:
        raise RuntimeError("no such\ninstruction")

    monkeypatch.setattr(fast, "_agreed", "numba")
    monkeypatch.setattr(compiled_passes, "infer", fails)
    say.cache_clear()
    examples = Examples(torch.zeros(4, 6), torch.tensor([0, 1, 1, 0]))
    problem = ff.Problem(lambda: nn.Sequential(nn.Linear(6, 2)), examples=lambda place: examples)
    for _ in range(2):
        passes = passes_for(problem, FlatModel(build(problem, 0)), examples)
        assert type(passes).__name__ == "Written"
    said = capsys.readouterr().err
    assert said == (
        "featherfed: this model trains without compiled passes, since numba fails: RuntimeError: no such instruction\n"
    )
    monkeypatch.setattr(compiled_passes, "infer", lambda *arguments: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        passes_for(problem, FlatModel(build(problem, 0)), examples)


def test_compiled_gradient_that_is_another_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    numba()
    from featherfed.learning.compiled import compiled_passes

    walk = compiled_passes.walk
    monkeypatch.setattr(compiled_passes, "walk", lambda *given: 1e-3 + walk(*given))
    fast._loaded.cache_clear()
    say.cache_clear()
    try:
        assert fast._loaded() == "torch"
    finally:
        fast._loaded.cache_clear()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder in which two processes kept at once what they compiled, and what both said.

    It is what the first use of an installation costs: on a busy machine a minute.
    """
    numba()
    folder = tmp_path_factory.mktemp("kept")
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    known |= {"FL_CACHE_DIR": str(folder), "HOME": "/nowhere"}
    both = [
        subprocess.Popen([sys.executable, "-c", SAYS], env=known, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    return folder, [process.communicate(timeout=280)[0] for process in both]


def test_two_processes_that_compile_at_once_do_not_disturb_each_other_and_a_third_only_reads(
    compiled: tuple[Path, list[str]],
) -> None:
    kept, both = compiled
    assert all(said.startswith("numba ") for said in both)
    # One for each of our packages that numba compiles.
    assert [folder.stat().st_mode & 0o077 for folder in kept.iterdir()] == [0, 0]
    written = {file: file.stat().st_mtime_ns for file in kept.rglob("*.nb*")}
    assert written
    assert asked(FL_CACHE_DIR=str(kept), HOME="/nowhere").stdout.startswith("numba ")
    assert {file: file.stat().st_mtime_ns for file in kept.rglob("*.nb*")} == written


def test_what_was_kept_and_cut_short_is_compiled_again_and_kept(
    compiled: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """As by a phone that lost its power: else it would train by torch for good."""
    kept, (first, _) = compiled
    shutil.copytree(kept, tmp_path / "kept")
    indexes = list((tmp_path / "kept").rglob("*.nbi"))
    assert indexes
    for index in indexes:
        os.truncate(index, 0)
    again = asked(FL_CACHE_DIR=str(tmp_path / "kept"), HOME="/nowhere")
    assert (again.stdout, again.stderr) == (first, "")
    assert all(index.stat().st_size for index in indexes)


def test_training_that_diverges_is_refused_by_both(written: str) -> None:
    shard = digits().examples(Place(of=12))
    space = Pipeline.parse("float32").space(layout(build(digits(), 0)), RoundKey(0, 1, 2))
    trainer = Trainer(digits(), shard)
    with pytest.raises(DivergedError, match=r"training diverged .*lr"):
        trainer.train(weights_of(), Training(lr=1e9), RoundKey(0, 1, 2), space)
