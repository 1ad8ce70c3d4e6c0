"""The wheel holds `featherfed` alone and all it needs, and works where nobody has seen this checkout."""

import contextlib
import json
import os
import shutil
import site
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKED = tuple(path.name for path in (ROOT / "featherfed").iterdir() if path.is_symlink())
FILES = ("pyproject.toml", "README.md", "LICENSE")

GRID = """
problem = "digits/tiny"
phones = 2
cohort = 2
rounds = 1
link = "3g"
"""


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FL_"))}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build folder in the checkout would add what it holds since the last time."""
    source = tmp_path_factory.mktemp("source")
    for name in ("featherfed", *LINKED, "lab", "tests"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index",
        "--disable-pip-version-check", "--wheel-dir", "dist", ".", cwd=source)  # fmt: skip
    [built] = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which finds what the wheel depends on where this one has it."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
        "--disable-pip-version-check", wheel, cwd=folder)  # fmt: skip
    # A folder that a .pth file adds has its own .pth files left alone: our editable install is none of it.
    [own] = folder.glob("lib/python*/site-packages")
    known = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages") and Path(path).is_dir()]
    (own / "dependencies.pth").write_text("\n".join(dict.fromkeys([*site.getsitepackages(), *known])) + "\n")
    return folder


def test_wheel_holds_featherfed_alone_and_every_file_of_it(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for folder, folders, files in os.walk(ROOT / "featherfed", followlinks=True)
        for path in (Path(folder, name) for name in files)
        if "__pycache__" not in path.parts
    }
    assert {"featherfed/py.typed", "featherfed/bandwidth_sim/profiles.toml", "featherfed/fl_bench/templates/run.html",
            "featherfed/server/dashboard/static/index.html"} <= expected  # fmt: skip
    assert held == expected


def test_lab_tests_and_folders_of_the_checkout_are_no_import_names(environment: Path, tmp_path: Path) -> None:
    assert {"server", "gateway", "fl_bench"} <= set(LINKED)
    code = (
        "import featherfed, importlib.util, json;"
        f"names = {['lab', 'tests', *LINKED]};"
        "print(json.dumps([featherfed.__file__, [name for name in names if importlib.util.find_spec(name)]]))"
    )
    where, found = json.loads(run(environment / "bin" / "python", "-c", code, cwd=tmp_path))
    assert Path(where).is_relative_to(environment)
    assert found == []


@pytest.mark.parametrize("command", ["fl-server", "fl-edge", "fl-link", "fl-bench"])
def test_every_command_is_installed(environment: Path, command: str, tmp_path: Path) -> None:
    assert "Usage: " in run(environment / "bin" / command, "--help", cwd=tmp_path)


def test_links_are_there(environment: Path, tmp_path: Path) -> None:
    assert "lossy-3g" in run(environment / "bin" / "fl-link", "list", cwd=tmp_path)


@pytest.mark.processes
def test_demo_runs_from_another_folder(environment: Path, tmp_path: Path) -> None:
    # A grid in virtual time, with its page; first, because it compiles in one process what the demo's would in each.
    (tmp_path / "grid.toml").write_text(GRID)
    run(environment / "bin" / "fl-bench", "run", "grid.toml", "--virtual", cwd=tmp_path)
    run(environment / "bin" / "fl-bench", "report", "results/grid", "--out", "page", cwd=tmp_path)
    assert "<svg" in (tmp_path / "page" / "report.html").read_text()
    said = run(environment / "bin" / "fl-bench", "demo", "--phones", "2", "--rounds", "2", "--bandwidth", "1Mbps",
               "--out", "runs", cwd=tmp_path)  # fmt: skip
    assert "the report lies in runs/demo/report.html" in said
    page = (tmp_path / "runs" / "demo" / "report.html").read_text()
    assert page.count("<svg") == 3
    report = json.loads(run(environment / "bin" / "fl-server", "report", "runs/demo", "--json", cwd=tmp_path))
    assert [row["accepted"] for row in report["rounds"]] == [2, 2]


OFFERED = """
import numpy as np
import torch

import featherfed as ff


@ff.stage("half_sign")
class HalfSign(ff.Stage):
    slot = ff.Slot.QUANTIZER
    symbol_bits = 1
    levels = 2

    def header_bytes(self, size):
        return 4 if size else 0

    def encode(self, values, generator):
        header = np.abs(values).mean(dtype=np.float32).tobytes() if len(values) else b""
        return header, (values < 0).astype(np.uint8)

    def decode(self, header, symbols, size):
        return (1 - 2 * symbols.astype(np.float32)) * np.frombuffer(header, "<f4")[0] if size else np.zeros(0, "f4")


class LowestFirst(ff.Select):
    def choose(self, phones, size, key):
        return sorted(phone.shard for phone in phones)[:size]


def examples(place):
    inputs = torch.linspace(0, 1, 20)[:, None]
    return ff.Examples(inputs, 3 * inputs)


line = ff.Problem(name="line", model=lambda: torch.nn.Linear(1, 1), examples=examples, loss=torch.nn.MSELoss())
"""
PACKAGE = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "offering"
version = "1"

[project.entry-points."featherfed.stages"]
half_sign = "offering"

[project.entry-points."featherfed.rules"]
lowest-first = "offering:LowestFirst"

[project.entry-points."featherfed.problems"]
line = "offering:line"

[tool.setuptools]
py-modules = ["offering"]
"""


def test_installed_package_offers_problems_stages_and_rules_by_name(environment: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "offering.py").write_text(OFFERED)
    (package / "pyproject.toml").write_text(PACKAGE)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-build-isolation", "--no-index",
        "--disable-pip-version-check", package, cwd=tmp_path)  # fmt: skip
    (tmp_path / "grid.toml").write_text(
        'problem = "line"\nphones = 3\ncohort = 2\nrounds = 2\nuplink = "half_sign"\nselect = "lowest-first"\n'
        'link = "3g"\n'
    )
    run(environment / "bin" / "fl-bench", "run", "grid.toml", "--virtual", cwd=tmp_path)
    report = json.loads(run(environment / "bin" / "fl-server", "report", "results/grid/run", "--json", cwd=tmp_path))
    assert [row["accepted"] for row in report["rounds"]] == [2, 2]
    with contextlib.closing(sqlite3.connect(tmp_path / "results" / "grid" / "run" / "run.sqlite")) as database:
        assert database.execute("select distinct cohort from rounds").fetchall() == [("[0, 1]",)]
