"""Every wrong command line of `fl-server`: one sentence, exit code 2 or 1, no traceback, the way out named."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featherfed.commands.server import main
from featherfed.errors import LocalError
from featherfed.server.config import RunConfig
from featherfed.server.storage.run_folder import create
from featherfed.server.storage.store import Store, put_value
from tests.layouts import LAYOUTS

from ..idx_files import write_mnist


def invoke(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)


def sentence(result: Result, code: int) -> str:
    """Return the one sentence of a failed command."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), "anything else would be a traceback"
    assert "Traceback" not in result.output
    *usage, error = result.output.strip().splitlines()
    assert error.startswith("Error: ")
    assert len(usage) == (3 if code == 2 else 0)
    return error.removeprefix("Error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ruonds", "3"], "No such option '--ruonds'."),
        (["--problem", "mnist/lits"], "unknown model 'lits' of problem mnist; did you mean 'lite'?"),
        (["--problem", "mnist/resnet50"], "unknown model 'resnet50' of problem mnist; known are 2nn, cnn, lite, mlp"),
        (["--problem", "minst"], "unknown problem 'minst'; did you mean 'mnist'?"),
        (["--set", "shift=28"], "--set shift=28 exceeds 27"),
        (["--set", "shfit=2"], "--set shfit: problem mnist/tiny has no such setting; did you mean 'shift'?"),
        (["--set", "shift"], "--set 'shift' is not NAME=VALUE, like --set shift=1"),
        (["--set", "shift=much"], "--set shift='much' is not a whole number, like 0"),
        (["--partition", "random"], "unknown partition 'random'; there are iid, shards:N, dirichlet:A, quantity:A"),
        (["--partition", "shards:x"], "partition 'shards:x' needs a whole number from 1 to 1e+06 after the colon"),
        (["--uplink", "rotat"], "unknown codec stage 'rotat'; did you mean rotate?"),
        (["--uplink", "vertex-smal"], "has 'vertex-smal', no stage and no preset; did you mean vertex-small?"),
        (["--uplink", "latice(1)"], "unknown codec stage 'latice'; did you mean flat?"),
        (["--delta", "0"], "0.0 is not in the range x>0"),
        (["--participations", "0"], "0 is not in the range x>=1"),
        (["--uplink", "rotate | topk(1/4)"], "topk does not go with rotate"),
        (["--downlink", "mask(1/16)"], "mask"),
        (["--server-optimizer", "adam"], "unknown server optimizer 'adam'"),
        (["--batch-size", "0"], "'0' is not a number above 0, or all"),
        (["--batch-size", "²"], "'²' is not a number above 0, or all"),
        (["--deadline", "30"], "'30' is not a time with a unit, like 500ms, 30s or 5min"),
        (["--deadline", "nans"], "--deadline nan is not a number above 0"),
        (["--over-select", "nan"], "--over-select nan is not a number from 1"),
        (["--phones", "3", "--cohort", "4"], "--cohort 4 exceeds --phones 3"),
        (["--target", "accuracy=97"], "--target accuracy=97 is not a fraction from 0 to 1, like accuracy=0.97"),
        (["--target", "acuracy=0.9"], "the problem has no metric 'acuracy'; did you mean 'accuracy'?"),
        (["--seed", str(2**64)], "--seed 18446744073709551616 exceeds 18446744073709551615"),
        (["--rounds", "9" * 30], f"--rounds {'9' * 30} exceeds 1000000000"),
        (["--batch-size", "9" * 5000], "is not a number above 0, or all"),
        (["--partition", "dirichlet:1e-320"], "partition 'dirichlet:1e-320' needs a number from 1e-06 to 1e+06 after"),
        (["--partition", "quantity:1e300"], "needs a number from 1e-06 to 1e+06 after the colon, like quantity:0.5"),
        (["--partition", "shards:1e300"], "needs a whole number from 1 to 1e+06 after the colon, like shards:2"),
        (["--problem", "digits", "--phones", "2000"], "1438 examples cannot be partitioned iid among 2000 phones"),
        (["--problem", "digits", "--phones", "800", "--partition", "shards:2"], "at most --phones 719"),
        (["--host", "a..b"], "--host 'a..b' is not a host"),
        (["--gateway", "1/" + "9" * 5000], "is not INDEX/OF"),
        (["--dashboard", "a..b:80"], "--dashboard 'a..b:80' is not HOST:PORT"),
        (["--port", "70000"], "70000 is not in the range 0<=x<=65535"),
        (["--decode-threads", "0"], "0 is not in the range x>=1"),
        (["--resume", "runs/x", "--lr", "0.3", "--name", "y"], "leave out --lr, --name"),
        (["--resume", "nowhere"], "nowhere is not a run folder: it has no config.toml and run.sqlite"),
    ],
)
def test_wrong_flag_of_serve_is_one_sentence_before_anything_starts(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in sentence(invoke("serve", *arguments), 2)
    assert list(tmp_path.iterdir()) == []


def test_updates_are_decoded_by_as_many_threads_as_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def threads(count: int) -> None:
        raise LocalError(f"{count} threads were wanted")

    monkeypatch.setattr("featherfed.server.serving.Threads", threads)
    flags = ["--decode-threads", "7", "--port", "0", "--runs", tmp_path, "--no-dashboard"]
    assert sentence(invoke("serve", "--problem", "digits/tiny", *flags), 1) == "7 threads were wanted"


def test_port_in_use_names_another(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        error = sentence(invoke("serve", "--problem", "digits", "--port", port, "--runs", tmp_path), 2)
    assert (
        error
        == f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port, or 0 for a free one"
    )


def test_run_folder_that_exists_names_both_ways_on(tmp_path: Path) -> None:
    folder = create(tmp_path, "mine", RunConfig())
    result = invoke("serve", "--problem", "digits", "--port", "0", "--runs", tmp_path, "--name", "mine")
    assert sentence(result, 2) == (
        f"the run folder {folder.path} exists; go on with --resume {folder.path}, or choose another --name"
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 2, 3, 4], "5 examples cannot be partitioned iid among 8 phones; choose at most --phones 5"),
        ([1, 26] * 4, "has labels from 1 to 26, and the models tell 10 classes, 0 to 9"),
        ([], "holds no example"),
    ],
)
def test_data_that_fit_no_run_are_refused_before_it_has_a_folder(labels: list[int], words: str, tmp_path: Path) -> None:
    write_mnist(tmp_path / "data", labels)
    runs = tmp_path / "runs"
    result = invoke(
        "serve", "--port", "0", "--phones", "8", "--runs", runs, "--data-dir", tmp_path / "data", "--no-dashboard"
    )
    assert result.exit_code in (1, 2)
    assert words in result.output and "Traceback" not in result.output
    assert not runs.exists()


def test_mnist_that_can_not_be_had_names_the_three_ways_out(tmp_path: Path) -> None:
    # A file where the folder should be: no network, here or elsewhere, could help.
    blocked = tmp_path / "file"
    blocked.touch()
    for result in (
        invoke("serve", "--port", "0", "--runs", tmp_path, "--data-dir", blocked),
        invoke("serve", "--port", "0", "--runs", tmp_path, FL_DATA_DIR=str(blocked)),
    ):
        error = sentence(result, 1)
        assert str(blocked) in error
        for way_out in ("--data-dir", "FL_DATA_DIR", "--problem digits"):
            assert way_out in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "no run folder is left behind"


@pytest.mark.parametrize(
    ("line", "words"),
    [("rounsd = 3", "unknown setting 'rounsd'; did you mean 'rounds'?"),
     ("rounds = 'three'", "rounds = 'three' is not a whole number"),
     ("rounds =", "cannot read the run's configuration")],
)  # fmt: skip
def test_broken_configuration_of_a_run_is_told_by_resume_and_report(line: str, words: str, tmp_path: Path) -> None:
    folder = create(tmp_path, "mine", RunConfig())
    Store(folder.database).close()
    folder.config.write_text(line)
    assert words in sentence(invoke("serve", "--resume", folder.path), 2)
    assert words in sentence(invoke("report", folder.path), 1)


def test_report_on_what_is_no_run_is_a_sentence(tmp_path: Path) -> None:
    assert "is not a run folder" in sentence(invoke("report", tmp_path), 1)
    folder = create(tmp_path, "mine", RunConfig())
    folder.database.write_text("no database " * 100)
    assert "cannot open" in sentence(invoke("report", folder.path), 1)


def test_report_of_a_run_without_rounds_prints_in_every_format(tmp_path: Path) -> None:
    folder = create(tmp_path, "mine", RunConfig(problem="mnist/2nn"))
    store = Store(folder.database)
    store.apply([put_value("run", "ab12"), put_value("parameters", "199210")])
    store.close()
    assert json.loads(invoke("report", folder.path, "--json").output)["rounds"] == []
    assert invoke("report", folder.path, "--csv").output.startswith("round,state,cohort,")
    assert "mnist/2nn, 199,210 parameters" in invoke("report", folder.path).output
    assert "choose one" in sentence(invoke("report", folder.path, "--csv", "--json"), 2)


def test_models_are_shown_with_shapes_parameters_and_bytes() -> None:
    lines = invoke("models", "mnist/2nn").output.splitlines()
    assert lines[0] == "mnist/2nn"
    assert lines[2].split() == ["a.weight", "200×784", "156,800", "627,200"]
    assert lines[-1].split() == ["total", "199,210", "796,840"]


def test_models_as_json_add_up() -> None:
    models = json.loads(invoke("models", "--json").output)
    names = [model["problem"] for model in models]
    assert {f"mnist/{name}" for name in LAYOUTS} | {"digits/lite", "emnist-letters/2nn", "cifar10/resnet20"} <= set(
        names
    )
    assert {model["problem"]: model["parameters"] for model in models}["cifar10/resnet20"] == 269_722
    for model in models:
        assert sum(tensor["parameters"] for tensor in model["tensors"]) == model["parameters"] == model["bytes"] / 4


def test_unknown_model_is_refused_by_models_too() -> None:
    assert "unknown problem 'mnits'; did you mean 'mnist'?" in sentence(invoke("models", "mnits"), 2)


@pytest.mark.parametrize("arguments", [["serve", "--help"], ["report", "--help"]])
def test_nothing_heavy_is_imported_for_help(arguments: list[str]) -> None:
    program = (
        "import sys; from featherfed.commands.server import main; main(sys.argv[1:], standalone_mode=False);"
        "heavy = {'torch', 'torchvision', 'sklearn', 'sqlalchemy', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_interrupt_ends_a_served_run_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "featherfed.commands.server", "serve", "--problem", "digits", "--port", "0",
         "--runs", str(tmp_path), "--name", "mine"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("listening on ws://127.0.0.1:")
        time.sleep(0.05)
        process.terminate()
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in output
    assert f"fl-server serve --resume {tmp_path / 'mine'}" in output
