"""`python -m lab peers` against real Flower processes, in a small size: wrong results fail, never slow ones."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from featherfed.errors import ConfigError
from lab.children import environment
from lab.environments import FLOWER, make
from lab.peers import Plan, run

pytestmark = pytest.mark.processes

MODEL_BYTES = 4 * 29_322
"""Of `lite`, in float32."""


def peers(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "lab", "peers", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=environment(**more))


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Go on where there can be network namespaces."""
    reason = ""
    if os.geteuid() != 0 or not shutil.which("ip"):
        reason = "network namespaces need root, unshare and ip"
    elif subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        reason = "this system lets nobody make a network namespace"
    if reason and os.environ.get("FEATHERFED_REQUIRE_TOOLS"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def flower(namespaces: None) -> Path:
    """The folder of Flower's commands, in the environment that `--flower auto` makes."""
    try:
        return make(FLOWER, FLOWER.default_folder, print)
    except ConfigError as error:
        pytest.skip(f"Flower cannot be had here: {error}")


def compared(part: str, flower: Path, *sizes: str) -> list[dict[str, Any]]:
    """Return the rows of one part; Flower's is the last."""
    done = peers("--part", part, *sizes, "--problem", "digits/lite", "--flower", str(flower), "--json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)[part]
    return rows


def test_both_systems_finish_the_same_rounds(flower: Path, tmp_path: Path) -> None:
    plan = Plan(
        problem="digits/lite", data_dir=None, phones=2, rounds=3, flower_rounds=2, simulated=4, cohort=2,
        simulated_rounds=2, epochs=1, batch_size=10, lr=0.1, models=(), turns=1,
    )  # fmt: skip
    orders = plan.orders("off", str(flower))
    rows = [asdict(run(order)) for order in (orders[1], orders[-2], orders[-1])]
    assert [row["updates"] for row in rows] == [6, 6, 4]
    float32, default, theirs = rows
    for row in rows:
        assert row["round_s"] > 0 and row["cpu_s"] > 0 and row["phone_bytes"] > 1e6 and row["server_bytes"] > 1e6, row
    # In three rounds three updates up and two models down, whole and not twice: the first model is drawn.
    whole = (3 + 2) / 3 * MODEL_BYTES
    assert whole < float32["bytes_per_phone_round"] < 1.05 * whole
    assert theirs["bytes_per_phone_round"] > 2 * MODEL_BYTES
    assert default["bytes_per_phone_round"] < float32["bytes_per_phone_round"] / 25
    kept, page = tmp_path / "off.json", tmp_path / "PERFORMANCE.md"
    kept.write_text(json.dumps({"off": rows}))
    page.write_text((Path(__file__).parents[2] / "docs" / "PERFORMANCE.md").read_text())
    done = peers("--from", str(kept), "--write", str(page))
    assert done.returncode == 0, done.stderr
    assert f"| Flower | 2 | {theirs['round_s']:.3f} |" in page.read_text()


@pytest.mark.skipif("FEATHERFED_PEERS" not in os.environ, reason="takes two minutes: FEATHERFED_PEERS=1 runs it")
def test_both_systems_learn_the_same(flower: Path) -> None:
    ours, virtual, beside, theirs = compared(
        "simulation", flower, "--simulated", "4", "--cohort", "4", "--simulated-rounds", "4"
    )
    # Virtual time is the same rounds on other sockets; Flower's differ by the order of the examples.
    assert virtual["accuracy"] == beside["accuracy"] == ours["accuracy"]
    assert ours["updates"] == theirs["updates"] == 16
    assert ours["accuracy"] > 0.7 and abs(ours["accuracy"] - theirs["accuracy"]) < 0.15
    *_, ours, theirs = compared("on", flower, "--phones", "2", "--flower-rounds", "4")
    assert ours["updates"] == theirs["updates"] == 8
    assert abs(ours["accuracy"] - theirs["accuracy"]) < 0.15


@pytest.mark.skipif("FEATHERFED_PEERS" not in os.environ, reason="takes two minutes: FEATHERFED_PEERS=1 runs it")
def test_both_systems_sum_under_masks(flower: Path, tmp_path: Path) -> None:
    rows = compared("secure", flower, "--phones", "5", "--rounds", "3", "--flower-rounds", "2")
    four_bits, small, theirs = rows
    assert [row["updates"] for row in rows] == [15, 15, 10]
    # Flower's masked weights are 64 bits wide on the wire, though they are 32 in the sum.
    assert 2 * MODEL_BYTES < theirs["up_bytes"] < 2.2 * MODEL_BYTES
    assert MODEL_BYTES / 8 < four_bits["up_bytes"] < 1.05 * MODEL_BYTES / 8
    assert small["up_bytes"] < theirs["up_bytes"] / 100
    kept, page = tmp_path / "secure.json", tmp_path / "PRIVACY.md"
    kept.write_text(json.dumps({"secure": rows}))
    page.write_text((Path(__file__).parents[2] / "docs" / "PRIVACY.md").read_text())
    done = peers("--from", str(kept), "--write", str(page))
    assert done.returncode == 0, done.stderr
    assert f"| Flower, SecAgg+ | 2 | {theirs['up_bytes'] / 1e3:.2f} |" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--problem", "mnist/lita"), "unknown model 'lita'"),
        (("--flower", "/nowhere"), "/nowhere has no python: name the bin folder of an environment of Flower"),
        (("--cohort", "20", "--simulated", "10"), "--cohort 20 exceeds --simulated 10"),
        (("--part", "of"), "'of' is not one of 'off', 'on', 'simulation', 'rounds'"),
    ],
)
def test_a_wrong_flag_is_one_sentence(namespaces: None, arguments: tuple[str, ...], sentence: str) -> None:
    done = peers(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr


def bare(folder: Path) -> Path:
    """Return a folder of commands that looks like Flower's and has our Python."""
    folder.mkdir()
    for name in FLOWER.commands:
        (folder / name).touch()
    (folder / "python").symlink_to(sys.executable)
    return folder


def test_another_flower_is_refused_by_its_version(namespaces: None, tmp_path: Path) -> None:
    programs = bare(tmp_path / "bin")
    done = peers("--flower", str(programs))
    assert done.returncode == 2 and "has no flwr" in done.stderr
    older = tmp_path / "packages" / "flwr-1.30.0.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: flwr\nVersion: 1.30.0\n")
    done = peers("--flower", str(programs), PYTHONPATH=f"{older.parent}:{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == 2 and "has flwr 1.30.0, and the comparison is written for 1.42" in done.stderr


def test_an_environment_that_cannot_be_made_says_how(namespaces: None, tmp_path: Path) -> None:
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    done = peers("--part", "off", HOME=str(tmp_path), **nowhere)
    assert done.returncode == 2
    assert f"DIR/bin/pip install '{FLOWER.requirements[0]}'" in done.stderr and "Traceback" not in done.stderr


def test_the_extra_is_what_auto_installs() -> None:
    import tomllib

    project: dict[str, Any] = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["peers"] == list(FLOWER.requirements)
    assert FLOWER.version in FLOWER.requirements[0]
