"""Names and files as clumsy and hostile users give them: a sentence, or a run that can be found again."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from featherfed.errors import ConfigError
from featherfed.server.config import RunConfig
from featherfed.server.door.tokens import add
from featherfed.server.storage.run_folder import RunFolder, create
from featherfed.server.storage.store import Store, put_value
from tests.commandline.commands import command, environment, run, sentence, unprivileged

ODD = [
    "lr=0.1?", "50%20", "a?mode=memory", "a#b", "a&b", "a b", "größe☃", "%3F", "~", "-x", "...", "[bold]", "[b",
    ":smile:",
    "$(id)", "'", '"', "file:x", "*", "x" * 240,
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("runs", ["runs", "what?/runs"])
def test_run_of_any_name_is_kept_where_its_name_says(name: str, runs: str, tmp_path: Path) -> None:
    folder = create(tmp_path / runs, name, RunConfig())
    store = Store(folder.database)
    store.apply([put_value("run", "ab12"), put_value("parameters", "5")])
    store.close()
    assert (tmp_path / runs / name / "run.sqlite").exists()
    again = Store(RunFolder(tmp_path / runs / name).database)
    assert again.values()["run"] == "ab12"
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == [runs.partition("/")[0]], "nothing lands elsewhere"


@pytest.mark.parametrize("name", ["a", "what? #50%20 ☃"])
def test_run_of_somebody_else_that_may_only_be_read_is_reported(name: str, tmp_path: Path) -> None:
    folder = create(tmp_path, name, RunConfig())
    store = Store(folder.database)
    store.apply([put_value("run", "ab12"), put_value("parameters", "5")])
    store.close()
    before = sorted(path.name for path in folder.path.iterdir())
    for path in (*folder.path.iterdir(), folder.path):
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = unprivileged("server", "report", folder.path, "--json")
    folder.path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] == 5
    assert sorted(path.name for path in folder.path.iterdir()) == before


@pytest.mark.parametrize("name", ["lr=0.1?", "[bold] ☃"])
def test_served_run_of_an_odd_name_is_reported_and_paused_by_name(name: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [*command("server"), "serve", "--problem", "digits", "--port", "0", "--no-dashboard", "--runs",
         str(tmp_path), f"--name={name}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on")
        process.terminate()
        output, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert f"the run is in {tmp_path / name}:" in output
    done = run("server", "report", tmp_path / name)
    assert done.returncode == 0, done.stderr
    assert f"{name}: digits," in done.stdout
    assert json.loads(run("server", "report", tmp_path / name, "--json").stdout)["run"] == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x" * 300, "has 300 bytes, and a folder's name 240 at the most"),
        ("ö" * 150, "has 300 bytes"),
        ("a\nb", "letters that cannot be printed"),
        ("a\x1b[31m", "letters that cannot be printed"),
        ("a\0b", "letters that cannot be printed"),
        ("\udcff", "letters that cannot be printed"),
    ],
)
def test_name_that_no_folder_should_have_is_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        create(tmp_path, name, RunConfig())
    assert list(tmp_path.iterdir()) == []


def test_link_that_leads_nowhere_is_a_run_that_exists(tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(tmp_path / "missing")
    with pytest.raises(ConfigError, match="exists; go on with"):
        create(tmp_path, "mine", RunConfig())


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A run in its folder."""
    folder = create(tmp_path / "runs", "mine", RunConfig(problem="digits"))
    store = Store(folder.database)
    store.apply([put_value("run", "ab12"), put_value("parameters", "5")])
    store.close()
    return folder.path


SERVE = ("serve", "--port", "0", "--no-dashboard")


@pytest.mark.parametrize("closed", [".", "config.toml", "run.sqlite"])
@pytest.mark.parametrize("given", [("report",), (*SERVE, "--resume"), ("dashboard",)])
def test_run_that_may_not_be_read_is_a_sentence_that_names_it(
    given: tuple[str, ...], closed: str, served: Path
) -> None:
    (served / closed).chmod(0)
    try:
        if given == ("dashboard",):
            if closed != ".":
                pytest.skip("the page opens, and leaves out what it cannot read")
            given = ("dashboard", "--dashboard", "127.0.0.1:0")
        told = sentence(unprivileged("server", *given, served))
        assert str(served) in told
        assert any(words in told for words in ("ermission denied", "not readable", "unable to open", "readonly"))
    finally:
        (served / closed).chmod(0o755)


def test_runs_folder_that_may_not_be_written_is_a_sentence(served: Path) -> None:
    given = (*SERVE, "--problem", "digits", "--name", "new", "--runs")
    served.parent.chmod(0o555)
    told = sentence(unprivileged("server", *given, served.parent))
    new = served.parent / "new"
    assert told == f"cannot make the run folder {new}: Permission denied; choose another folder (--runs)"
    served.parent.chmod(0)
    try:
        assert "is not readable" in sentence(unprivileged("server", *given, served.parent))
        assert "is not readable" in sentence(unprivileged("server", "dashboard", served.parent))
    finally:
        served.parent.chmod(0o755)


def test_token_file_that_may_not_be_read_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    add(path, "phone")
    path.chmod(0)
    for given in ((*SERVE, "--problem", "digits", "--tokens"), ("token", "list", "--tokens")):
        told = sentence(unprivileged("server", *given, path))
        assert f"{path}" in told
        assert "is not readable" in told
    # Where it lies beside the runs, nobody is let in without it either.
    told = sentence(unprivileged("server", *SERVE, "--problem", "digits", "--runs", tmp_path))
    assert told == f"cannot read the tokens {path}: Permission denied"


def test_mnist_that_may_not_be_read_names_the_three_ways_out(tmp_path: Path) -> None:
    (tmp_path / "MNIST").mkdir(mode=0)
    told = sentence(unprivileged("server", *SERVE, "--runs", tmp_path / "runs", "--data-dir", tmp_path))
    assert "MNIST" in told
    assert "Permission denied" in told
    for way_out in ("--data-dir", "FL_DATA_DIR", "--problem digits"):
        assert way_out in told


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key"])
def test_tls_file_that_may_not_be_read_is_a_sentence(flag: str, authority: dict[str, Path], tmp_path: Path) -> None:
    files = {"--tls-cert": authority["cert"], "--tls-key": authority["key"]}
    given: list[str] = []
    for name, path in files.items():
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(0 if name == flag else 0o644)
        given += [name, str(copy)]
    told = sentence(unprivileged("server", *SERVE, "--problem", "digits", "--runs", tmp_path / "runs", *given))
    assert str(tmp_path / files[flag].name) in told
    assert "ermission denied" in told or "not readable" in told


@pytest.mark.parametrize("name", ["config.toml", "run.sqlite", "store.toml"])
def test_folder_where_a_file_is_meant_is_a_sentence(name: str, served: Path) -> None:
    (served / name).unlink(missing_ok=True)
    (served / name).mkdir()
    for given in (("report",), (*SERVE, "--resume")):
        assert name in sentence(run("server", *given, served))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_run_on_a_disk_that_is_full_says_so(small_disk: Path) -> None:
    told = sentence(run("server", *SERVE, "--problem", "digits", "--runs", small_disk, "--name", "mine"))
    assert str(small_disk) in told
    assert "full" in told or "No space left" in told or "I/O error" in told


def test_bench_on_a_disk_that_is_full_says_so(small_disk: Path, tmp_path: Path) -> None:
    scenario = tmp_path / "mine.toml"
    scenario.write_text('problem = "digits/tiny"\nphones = 1\nrounds = 1\ntrain = "none"\n')
    (small_disk / "other").write_bytes(bytes(64 * 1024))
    told = sentence(run("bench", "run", scenario, "--virtual", "--out", small_disk))
    assert str(small_disk) in told
    assert "No space left" in told
