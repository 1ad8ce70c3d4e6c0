"""Rules, selections and codec stages from a user's own file: whole runs in virtual time, and their faults."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import featherfed as ff
from featherfed.codec.registry import STAGES, stage
from featherfed.errors import ConfigError, LocalError, ProblemError, SpecError
from featherfed.fl_bench.cells import run_virtual
from featherfed.fl_bench.scenario import read_scenario
from featherfed.randomness import RoundKey
from featherfed.rules import checked
from featherfed.rules.aggregate import Updates
from featherfed.rules.naming import load_aggregate, load_select, load_server_optimizer
from featherfed.rules.select import PhoneFacts, SelectKey
from featherfed.rules.server_optimizer import ServerState
from featherfed.server.config import RunConfig
from featherfed.server.serving import check
from featherfed.testing import check_stage

from .own_rules import RIGHT, WRONG

SMALL = 'problem = "digits/tiny"\nphones = 4\ncohort = 3\nrounds = 2\nlr = 0.05\nbatch_size = 40\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with both files; what they register goes with them."""
    monkeypatch.chdir(tmp_path)
    known, path = dict(STAGES), list(sys.path)
    (tmp_path / "my_right_rules.py").write_text(RIGHT)
    (tmp_path / "my_wrong_rules.py").write_text(WRONG)
    yield tmp_path
    for name in ("my_right_rules", "my_wrong_rules"):
        sys.modules.pop(name, None)
    STAGES.clear()
    STAGES.update(known)
    sys.path[:] = path
    from featherfed.rules import naming

    naming._load.cache_clear()


def run(folder: Path, text: str, out: str = "out") -> dict[str, np.ndarray]:
    """Return the tensors of the model that a run ends with."""
    file = folder / "s.toml"
    file.write_text(SMALL + text)
    (cell,) = read_scenario(file, way="virtual")
    run_virtual(cell, folder / out, None)
    return load_file(folder / out / cell.name / "model.safetensors")


def updates(count: int = 5, size: int = 20) -> Updates:
    rows = [np.random.default_rng(number).standard_normal(size).astype(np.float32) for number in range(count)]
    return Updates(rows, [1] * count, list(range(count)), RoundKey(0, 1))


def test_stage_of_a_users_own_keeps_what_every_stage_promises(folder: Path) -> None:
    ff.load_problem("digits")
    check(RunConfig(problem="digits/tiny", plugin=["my_right_rules"], uplink="terngrad | entropy"))
    for spec in ("terngrad", "terngrad | entropy", "topk(1/20) | terngrad", "rotate | terngrad"):
        check_stage(spec)


def test_check_stage_says_what_a_stage_breaks(folder: Path) -> None:
    @stage("halved")
    class Halved(STAGES["float32"]):  # type: ignore[misc]
        def decode(self, header: bytes, symbols: Any, size: int) -> Any:
            return super().decode(header, symbols, size) / np.float32(2)

    with pytest.raises(AssertionError, match=r"halved says that it is unbiased, and the mean of 400 is off by 50\.0%"):
        check_stage("halved")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Short", "must return an array of shape (20,), one number a parameter, and returns shape (7,)"),
        ("Nan", "returns 20 of 20 numbers that are NaN or infinite"),
        ("Raises", "AttributeError: 'Updates' object has no attribute 'nothing'"),
    ],
)
def test_aggregate_that_returns_nonsense_is_named_with_its_line(folder: Path, name: str, words: str) -> None:
    rule = load_aggregate(f"my_wrong_rules:{name}")
    with pytest.raises(ProblemError) as raised:
        checked.combined(rule, {}, updates())
    sentence = str(raised.value)
    assert sentence.startswith(f"the aggregate my_wrong_rules:{name} (my_wrong_rules.py, line ")
    assert words in sentence


def test_server_optimizer_that_returns_no_state_is_named_with_its_line(folder: Path) -> None:
    rule = load_server_optimizer("my_wrong_rules:Half", 1.0)
    with pytest.raises(ProblemError, match=r"my_wrong_rules.py, line \d+\) must return a ff.ServerState, and"):
        checked.stepped(rule, ServerState(np.zeros(3, np.float32)), np.ones(3, np.float32), 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Stranger", "returns shard 99, which is not one of the 4"),
        ("Greedy", "returns 4 shards; it is asked for 1 to 2"),
    ],
)
def test_selection_of_strangers_or_of_too_many_is_named_with_its_line(folder: Path, name: str, words: str) -> None:
    rule = load_select(f"my_wrong_rules:{name}")
    with pytest.raises(ProblemError, match=rf"\(my_wrong_rules.py, line \d+\) {words}"):
        checked.chosen(rule, [PhoneFacts(shard) for shard in range(4)], 2, SelectKey(0, 1, 0))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"plugin": ["my_wrong_rules"], "uplink": "shortened"}, r"shortened \(my_wrong_rules.py, line \d+\) decodes"),
        ({"plugin": ["nowhere_at_all"]}, "--plugin nowhere_at_all: there is no module 'nowhere_at_all'"),
        ({"uplink": "terngrad2"}, "unknown codec stage 'terngrad2'.*--plugin"),
        ({"aggregate": "my_right_rules:Nowhere"}, "has no 'Nowhere'"),
        ({"aggregate": "my_right_rules:Charged"}, "'Charged' is no subclass of ff.Aggregate"),
        ({"aggregate": "my_wrong_rules:Unfinished"}, "cannot be made: Can't instantiate abstract class"),
        ({"aggregate": "my_right_rules:Equal:3"}, "has 1 numbers after the name, and it takes no number"),
        ({"mode": "async", "aggregate": "my_right_rules:Nearest"}, "--aggregate my_right_rules:Nearest.*--mode async"),
        ({"gateways": 2, "aggregate": "median"}, "--aggregate median cannot be made of partial sums.*--gateways 2"),
        ({"gateways": 2, "select": "fast-links"}, "--select fast-links:0.5 chooses among all phones, and --gateways 2"),
        ({"aggregate": "krum:1"}, "krum:1 needs at least 5 updates, and --min-updates 1 .*say --min-updates 5"),
        ({"aggregate": "krum:1", "min_updates": 5, "uplink": "topk(1/4)"}, "--aggregate krum:1 .*--uplink topk"),
    ],
)
def test_what_cannot_be_is_refused_when_the_run_is_set_up(folder: Path, settings: dict[str, Any], words: str) -> None:
    given = {"problem": "digits/tiny", "uplink": "float32", **settings}
    with pytest.raises(ConfigError, match=words):
        check(RunConfig(**given))


def test_stage_is_checked_where_it_is_registered(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"stage 'rotate' .*has the name of another"):
        stage("rotate")(type("Other", (ff.Stage,), {"slot": ff.Slot.STATE}))
    with pytest.raises(SpecError, match="fills the quantizer slot, and has no symbol_bits, levels, header_bytes"):
        stage("empty")(type("Empty", (ff.Stage,), {"slot": ff.Slot.QUANTIZER}))
    with pytest.raises(SpecError, match="says no slot"):
        stage("nowhere")(type("Nowhere", (ff.Stage,), {}))


def test_whole_run_with_an_own_rule_of_each_kind_and_an_own_stage(folder: Path) -> None:
    own = (
        'plugin = ["my_right_rules"]\nuplink = "terngrad | entropy"\naggregate = "my_right_rules:Nearest:0.5"\n'
        'select = "my_right_rules:Charged"\nserver_optimizer = "my_right_rules:Lion:0.8"\nserver_lr = 0.01\n'
        'link = { "2g" = 0.5, "4g" = 0.5 }\n'
    )
    first, again = run(folder, own, "first"), run(folder, own, "again")
    assert {"optimizer.m", "aggregate.last"} <= set(first)
    assert {name: tensor.tobytes() for name, tensor in first.items()} == {
        name: tensor.tobytes() for name, tensor in again.items()
    }


def test_weights_of_an_own_rule_are_those_of_its_sum(folder: Path) -> None:
    uneven = 'partition = "quantity:0.5"\nuplink = "float32"\n'
    equal = run(folder, f'aggregate = "my_right_rules:Equal"\n{uneven}', "equal")
    mean = run(folder, f'aggregate = "mean"\n{uneven}', "mean")
    assert any(tensor.tobytes() != mean[name].tobytes() for name, tensor in equal.items())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('aggregate = "my_wrong_rules:Short"', "the aggregate my_wrong_rules:Short (my_wrong_rules.py, line"),
        ('select = "my_wrong_rules:Stranger"', "the selection my_wrong_rules:Stranger (my_wrong_rules.py, line"),
        ('mode = "async"\nselect = "my_wrong_rules:Stranger"', "returns shard 99, which is not one of the 4"),
    ],
)
def test_run_pauses_with_the_sentence_where_a_rule_fails(folder: Path, line: str, words: str) -> None:
    with pytest.raises(LocalError) as raised:
        run(folder, line + "\n")
    assert "pauses: " in str(raised.value)
    assert words in str(raised.value)
