"""Two servers on one run: the second is told who has it."""

import os
import shutil
from pathlib import Path

import pytest

from featherfed.errors import ConfigError
from featherfed.server.config import RunConfig
from featherfed.server.storage.holding import hold
from featherfed.server.storage.run_folder import create
from featherfed.server.storage.store import Store
from tests.commandline.commands import run, sentence


def test_run_that_is_served_is_not_resumed_by_another_server(tmp_path: Path) -> None:
    folder = create(tmp_path, "mine", RunConfig(problem="digits"))
    Store(folder.database).close()
    with hold(folder, say=print):
        for more in ([], ["--gateway-of", "ws://127.0.0.1:9", "--gateway", "0/1"]):
            done = run("server", "serve", "--resume", folder.path, "--port", "0", "--no-dashboard", *more)
            assert sentence(done) == (
                f"{folder.path} is served by process {os.getpid()}; stop that one first, or watch the run with"
                " fl-server dashboard"
            )
    assert run("server", "report", folder.path, "--csv").returncode == 0, "who only reads needs no lock"


def test_run_in_postgresql_is_locked_in_every_copy_of_its_folder(postgresql: str, tmp_path: Path) -> None:
    folder = create(tmp_path, "mine", RunConfig(), store=postgresql)
    shutil.copytree(folder.path, tmp_path / "copy")
    copy = type(folder)(tmp_path / "copy")
    with hold(folder, say=print), pytest.raises(ConfigError) as raised, hold(copy, say=print):
        pass
    assert f"is served by process {os.getpid()} on " in str(raised.value)
    with hold(copy, say=print):
        pass
