import os
from collections.abc import Callable
from pathlib import Path

import pytest

from featherfed.errors import ConfigError
from featherfed.server.config import RunConfig
from featherfed.server.storage.run_folder import RunFolder, create, existing, write_durably

CONFIG = RunConfig(problem="mnist/2nn", rounds=3)


def test_new_run_keeps_its_configuration_and_is_found_again(tmp_path: Path) -> None:
    folder = create(tmp_path / "runs", "mine", CONFIG)
    assert folder.path == tmp_path / "runs" / "mine"
    folder.database.touch()
    assert existing(folder.path) == (folder, CONFIG)


def test_run_without_a_name_gets_time_and_problem(tmp_path: Path) -> None:
    name = create(tmp_path, None, CONFIG).path.name
    day, clock, problem = name.split("-", 2)
    assert (len(day), len(clock), problem) == (8, 6, "mnist-2nn")


def test_run_that_exists_is_never_touched(tmp_path: Path) -> None:
    folder = create(tmp_path, "mine", CONFIG)
    before = folder.config.read_bytes()
    with pytest.raises(ConfigError, match=r"mine exists; go on with --resume .*mine, or choose another --name"):
        create(tmp_path, "mine", RunConfig())
    assert folder.config.read_bytes() == before


@pytest.mark.parametrize("name", ["", "a/b", "/tmp/x", "..", ".", "a/"])
def test_path_for_a_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a folder; a path goes to --runs"):
        create(tmp_path, name, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_runs_folder_that_is_a_file_is_told_apart_from_a_run_that_exists(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match=r"cannot make the run folder .*; choose another folder \(--runs\)"):
        create(tmp_path / "runs", "mine", CONFIG)


@pytest.mark.parametrize("missing", ["config.toml", "run.sqlite"])
def test_folder_that_is_no_run_is_refused(tmp_path: Path, missing: str) -> None:
    folder = create(tmp_path, "mine", CONFIG)
    folder.database.touch()
    (folder.path / missing).unlink()
    with pytest.raises(ConfigError, match=r"mine is not a run folder: it has no config.toml and run.sqlite"):
        existing(folder.path)


def writes(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)

    return write


def test_current_and_best_model_are_the_versions_that_were_promoted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number, best in ((1, True), (2, False), (3, False)):
        folder.write_version(number, writes(f"model {number}"))
        folder.promote(number)
        if best:
            folder.keep_best(number)
    assert folder.model.read_text() == "model 3"
    assert folder.best.read_text() == "model 1"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.safetensors", "model-3.safetensors", "model.safetensors",
    ]  # fmt: skip


def test_version_that_is_promoted_again_as_by_a_resumed_run_leaves_no_other_name(tmp_path: Path) -> None:
    folder = create(tmp_path, "mine", CONFIG)
    folder.version(1).write_text("one")
    for _ in range(2):
        folder.promote(1)
        folder.keep_best(1)
    names = sorted(path.name for path in folder.path.glob("*.*"))
    assert names == ["best.safetensors", "config.toml", "model-1.safetensors", "model.safetensors"]


def test_version_that_was_not_promoted_leaves_the_current_model_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_version(1, writes("one"))
    folder.promote(1)
    folder.write_version(2, writes("two"))
    assert folder.model.read_bytes() == b"one"
    assert folder.version(1).exists(), "the database still points to it"


def test_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rounds.csv"
    write_durably(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="No space left"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
