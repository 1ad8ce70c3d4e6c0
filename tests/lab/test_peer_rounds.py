"""The part `rounds` of `python -m lab peers`: ours and a plain loop as they are, the others where they can be had."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from featherfed.errors import ConfigError, LocalError
from featherfed.server.watchers.watcher import Watcher
from lab.__main__ import main
from lab.children import environment
from lab.environments import FEDJAX, PFL, check, make
from lab.orders import Figures, Order
from lab.peer_rounds import AGREE, DEFAULT, FLOAT32, OURS, agreed, medians, orders, table
from lab.peers import run
from lab.round_runs import cohorts_of

PAGE = Path(__file__).parents[2] / "docs" / "PERFORMANCE.md"
SMALL = Order(
    name="small", way="ours", problem="digits/tiny", phones=6, cohort=3, rounds=3, train=True, data_dir=None, epochs=4,
    batch_size=10, lr=0.1, evaluates=True, **FLOAT32,
)  # fmt: skip


def figures(name: str, accuracy: float | None = 0.9, **more: Any) -> Figures:
    known = {"rounds": 10, "updates": 100, "round_s": 1.0, "cpu_s": 1.0, "start_s": 2.0, "all_bytes": 5e8}
    nothing = dict.fromkeys(("bytes_per_phone_round", "bytes_of_a_round", "phone_bytes", "server_bytes"))
    return Figures(**{"name": name, "accuracy": accuracy, **known, **nothing, **more})


def test_accuracies_that_lie_apart_are_an_error_with_both_figures() -> None:
    agreed("2nn", [figures("ours", 0.93), figures("theirs", 0.93 + 0.9 * AGREE)])
    with pytest.raises(LocalError, match=r"2nn: theirs comes to an accuracy of 0\.9450 and ours to 0\.9300, more than"):
        agreed("2nn", [figures("ours", 0.93), figures("theirs", 0.945)])
    with pytest.raises(LocalError, match="the accuracy of theirs is None"):
        agreed("2nn", [figures("ours", 0.93), figures("theirs", None)])
    with pytest.raises(LocalError, match="the accuracy of theirs is nan"):
        agreed("2nn", [figures("ours", 0.93), figures("theirs", float("nan"))])


def test_turns_of_a_row_become_their_medians_and_the_highest_memory() -> None:
    turns = [figures("a", round_s=seconds, all_bytes=size) for seconds, size in ((3.0, 1.0), (1.0, 9.0), (2.0, 2.0))]
    assert (medians(turns).round_s, medians(turns).all_bytes) == (2.0, 9.0)


def test_each_model_has_all_systems_and_only_2nn_default_codecs() -> None:
    def order(name: str, way: str, **more: Any) -> Order:
        return replace(SMALL, **{"name": name, "way": way, "uplink": "", "downlink": "", **more})

    made = orders("2nn", order, {"pfl": "P", "fedjax": "F"})
    assert [each.way for each in made] == ["ours", "ours", "ours", "plain", "pfl", "pfl", "fedjax"]
    assert [each.workers for each in made if each.way == "pfl"] == [0, 2]
    assert {each.problem for each in made} == {"digits/2nn"}
    assert {each.programs for each in made} == {"", "P", "F"}
    assert not next(each for each in made if each.name == DEFAULT).uplink
    assert DEFAULT not in [each.name for each in orders("lite", order, {"pfl": "P", "fedjax": "F"})]


def test_kept_figures_fill_the_table(tmp_path: Path) -> None:
    rows = [
        {"model": "2nn", **asdict(figures(name, round_s=seconds))}
        for name, seconds in ((OURS, 0.2), (DEFAULT, 0.1), ("FedJAX", 0.3))
    ]
    kept, page = tmp_path / "rounds.json", tmp_path / "PERFORMANCE.md"
    kept.write_text(json.dumps({"rounds": rows}))
    page.write_text(PAGE.read_text())
    done = CliRunner().invoke(main, ["peers", "--from", str(kept), "--write", str(page)])
    assert done.exit_code == 0, done.output
    assert "| `2nn` | FedJAX | 0.300 | 1.50 | 3.00 | 1.00 | 500 | 2.0 | 0.9000 |" in page.read_text()
    assert "| `2nn` | FedJAX |" in table(rows)


def test_cohorts_are_those_that_our_server_asks(tmp_path: Path) -> None:
    from featherfed.fl_bench.cells import run_virtual
    from featherfed.fl_bench.scenario import Cell
    from featherfed.server.config import config_from

    asked = []

    class Seen(Watcher):
        def round_opened(self, round_number: int, attempt: int, cohort: Any) -> None:
            asked.append(sorted(cohort))

    names = ("problem", "phones", "cohort", "rounds")
    config = config_from({**{name: getattr(SMALL, name) for name in names}, "seed": 0})
    run_virtual(Cell({}, config, {"train": "none"}), tmp_path, None, Seen())
    assert asked == [sorted(cohort) for cohort in cohorts_of(SMALL)]
    assert len({tuple(cohort) for cohort in asked}) > 1


@pytest.mark.processes
def test_ours_and_a_plain_loop_learn_the_same_from_the_same_weights() -> None:
    ours, plain = run(SMALL), run(replace(SMALL, name="plain", way="plain"))
    for row in (ours, plain):
        assert row.updates == 9 and row.round_s > 0 and row.cpu_s > 0 and row.all_bytes > 1e6 and row.start_s > 0, row
        assert row.bytes_of_a_round is None and row.server_bytes is None
    assert ours.accuracy is not None and plain.accuracy is not None
    assert ours.accuracy > 0.7 and abs(ours.accuracy - plain.accuracy) < 0.1


@pytest.mark.processes
def test_a_system_that_fails_is_a_sentence_with_what_it_said(tmp_path: Path) -> None:
    # Its Python has neither.
    (tmp_path / "python").symlink_to(Path(sys.executable).resolve())
    with pytest.raises(LocalError, match=r"theirs: its program failed(.|\n)*No module named"):
        run(replace(SMALL, name="theirs", way="fedjax", programs=str(tmp_path)))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--pfl", "/nowhere"), "/nowhere has no python: name the bin folder of an environment of pfl-research"),
        (("--model", "2nm"), "unknown model '2nm'"),
    ],
)
def test_a_wrong_flag_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    done = CliRunner().invoke(main, ["peers", "--part", "rounds", *arguments])
    assert done.exit_code == 2 and sentence in done.output


def test_another_version_of_a_peer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    older = tmp_path / "packages" / "pfl-0.5.2.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: pfl\nVersion: 0.5.2\n")
    monkeypatch.setenv("PYTHONPATH", str(older.parent))
    with pytest.raises(ConfigError, match=r"has pfl 0\.5\.2, and the comparison is written for 0\.6"):
        check(PFL, tmp_path)


@pytest.mark.processes
@pytest.mark.mnist
@pytest.mark.skipif("FEATHERFED_PEERS" not in os.environ, reason="takes minutes: FEATHERFED_PEERS=1 runs it")
def test_all_systems_learn_the_same(tmp_path: Path) -> None:
    try:
        found = {system.flag: str(make(system, system.default_folder, print)) for system in (PFL, FEDJAX)}
    except ConfigError as error:
        pytest.skip(f"the peers cannot be had here: {error}")
    page = tmp_path / "PERFORMANCE.md"
    page.write_text(PAGE.read_text())
    flags = [flag for name, folder in found.items() for flag in (f"--{name}", folder)]
    command = [sys.executable, "-m", "lab", "peers", "--part", "rounds", "--model", "2nn", *flags]
    done = subprocess.run(
        [*command, "--json", "--write", str(page)], capture_output=True, text=True, timeout=290, check=False,
        env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rounds"]
    assert [row["updates"] for row in rows] == [100] * 7
    assert min(row["accuracy"] for row in rows) > 0.9
    assert f"| `2nn` | FedJAX | {rows[-1]['round_s']:.3f} |" in page.read_text()
