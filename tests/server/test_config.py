import math
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from featherfed.errors import ConfigError
from featherfed.rules.naming import names_of
from featherfed.rules.server_optimizer import ServerOptimizer
from featherfed.server.config import BY_ROUND, FOR_ALL, FOR_SOME, KNOWN, RunConfig, config_from, read_config
from featherfed.server.options import FLAGS, run_flags
from featherfed.training_settings import Training

ODD = RunConfig(
    phones=20, cohort=7, batch_size=0, uplink="subsample(1/16)|rotate|quantize(2)", downlink="rotate | eden(4)",
    deadline=0.1 + 0.2, heartbeat=1234567.5, lr=1e-7, seed=2**64 - 1, server_optimizer="fedyogi", over_select=1.5,
)  # fmt: skip


def parsed(command: str) -> RunConfig:
    """Return what `fl-server serve` makes of a command line, by the real flags and the real shell rules."""
    caught: dict[str, Any] = {}

    @click.command()
    @run_flags
    def serve(**settings: Any) -> None:
        caught.update({key: value for key, value in settings.items() if value is not None})

    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("fl-server", "serve")
    result = CliRunner().invoke(serve, arguments)
    assert result.exit_code == 0, result.output
    return config_from(caught)


def test_command_round_trips_through_a_shell_and_the_flags() -> None:
    assert parsed(ODD.command()) == ODD
    assert "--batch-size all" in ODD.command()
    assert "'subsample(1/16)|rotate|quantize(2)'" in ODD.command()


def test_command_of_the_defaults_is_the_bare_program() -> None:
    assert RunConfig().command() == "fl-server serve"
    assert parsed("fl-server serve") == RunConfig()


@given(
    phones=st.integers(1, 500),
    batch_size=st.integers(0, 100),
    lr=st.floats(1e-9, 1e9),
    deadline=st.floats(1e-3, 1e6),
    # A comma parts the values of rounds.
    uplink=st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters=","), min_size=1, max_size=20),
)
def test_any_command_round_trips(phones: int, batch_size: int, lr: float, deadline: float, uplink: str) -> None:
    config = config_from(
        {"phones": phones, "batch_size": batch_size, "lr": lr, "deadline": deadline, "uplink": "x" + uplink}
    )
    assert parsed(config.command()) == config


def test_toml_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(ODD.to_toml())
    assert read_config(path) == ODD


def test_every_setting_has_its_flag() -> None:
    assert {flag.removeprefix("--").replace("-", "_") for flag, _, _ in FLAGS} == {*KNOWN} - {"set", "plugin", "secure"}


def test_help_names_the_defaults_that_hold() -> None:
    defaults = {field.name: field.default for field in fields(RunConfig)}
    for flag, _, text in FLAGS:
        name = flag.removeprefix("--").replace("-", "_")
        if name in ("dp", "noise_multiplier", "target_epsilon", "delta", "participations"):
            # Nothing, or what the others of them make of it.
            continue
        if name not in (
            "target",
            "cohort",
            "quorum",
            "buffer",
            "deadline",
            "unmask_deadline",
            "heartbeat",
            "max_examples",
            "clip_norm",
        ):
            shown = text.rpartition("[default: ")[2].removesuffix("]")
            default = defaults[name]
            if name == "downlink":
                default = f"{FOR_SOME}, or {FOR_ALL} where each round asks all phones"
            assert shown == (f"{default:g}" if isinstance(default, float) else str(default)), flag


def test_downlink_is_a_chain_where_each_round_asks_all_phones_and_else_a_lattice() -> None:
    assert config_from({}).downlink == config_from({"phones": 4}).downlink == FOR_ALL
    assert config_from({"phones": 40, "cohort": 20, "over_select": 2.0}).downlink == FOR_ALL
    for values in ({"phones": 100}, {"phones": 4, "cohort": "4,3"}, {"mode": "async"}):
        assert config_from(values).downlink == FOR_SOME
    for values in ({"phones": 100, "downlink": FOR_ALL}, {"downlink": FOR_SOME}, {"phones": 100}, {}):
        config = config_from(values)
        assert parsed(config.command()) == config, "what was named stays named"


def test_cohort_is_the_phones_where_fewer_than_ten_were_asked_for() -> None:
    assert config_from({"phones": 4}).cohort == 4
    assert config_from({"phones": 40}).cohort == 10
    assert config_from({"phones": 40, "cohort": 20}).cohort == 20


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"problme": "mlp"}, "unknown setting 'problme'; did you mean 'problem'"),
        ({"zzzz": 1}, "unknown setting 'zzzz'; known are "),
        ({"phones": 0}, "--phones 0 is below 1"),
        ({"rounds": -1}, "--rounds -1 is below 1"),
        ({"cohort": 11}, "--cohort 11 exceeds --phones 10"),
        ({"quorum": 11}, "--quorum 11 exceeds the 10 phones of a cohort"),
        ({"min_updates": 4, "quorum": 3}, "--min-updates 4 exceeds the 3 updates that close a round"),
        ({"lr": 0.0}, "--lr 0.0 is not a number above 0"),
        ({"lr": math.nan}, "--lr nan is not a number above 0"),
        ({"lr": 1e10}, "--lr 10000000000.0 is not a number above 0 and up to 1e"),
        ({"deadline": math.inf}, "--deadline inf is not a number above 0"),
        ({"momentum": -0.1}, "--momentum -0.1 is not a number from 0"),
        ({"prox_mu": math.nan}, "--prox-mu nan is not a number from 0"),
        ({"server_average": 1.0}, "--server-average 1.0 is not a number from 0 to below 1"),
        ({"set": {"shift": [1]}}, r"--set shift=\[1\] is not true, false, a number, or a text"),
        ({"set": {"a b": 1}}, "'a b' is not the name of a setting"),
        ({"set": 1}, "set = 1 is not a table, like"),
        ({"over_select": 0.5}, "--over-select 0.5 is not a number from 1"),
        ({"over_select": math.nan}, "--over-select nan is not a number from 1"),
        ({"over_select": math.inf}, "--over-select inf is not a number from 1"),
        ({"target": "accuracy"}, "--target 'accuracy' is not a metric and its value, like accuracy=0.97"),
        ({"target": "mae=nan"}, "--target 'mae=nan' is not a metric and its value"),
        ({"target": "=0.5"}, "--target '=0.5' is not a metric and its value"),
        ({"connect": "when-choosen"}, "unknown --connect 'when-choosen'; did you mean 'when-chosen'"),
        ({"connect": "when-chosen", "mode": "async"}, "--connect when-chosen tells .* goes with --mode sync"),
        ({"connect": "when-chosen", "gateways": 2}, "--connect when-chosen .* without --gateways and --over-select"),
        ({"connect": "when-chosen", "over_select": 1.5, "cohort": 5}, "--connect when-chosen .* and --over-select"),
        ({"connect": "when-chosen", "over_select": "1,1.5", "cohort": 5}, "from round 2 on: --connect when-chosen"),
        ({"lr_decay": 1.5}, "--lr-decay 1.5 is not a number above 0 and up to 1"),
        ({"seed": 2**64}, "--seed 18446744073709551616 exceeds 18446744073709551615"),
        ({"server_optimizer": "fedadma"}, "unknown server optimizer 'fedadma'; did you mean 'fedadam'"),
        ({"phones": "ten"}, "phones = 'ten' is not a whole number"),
        ({"phones": 10.0}, "phones = 10.0 is not a whole number"),
        ({"phones": True}, "phones = True is not a whole number"),
        ({"lr": "0.1"}, "lr = '0.1' is not a number"),
        ({"problem": 2}, "problem = 2 is not a text"),
        ({"lr": 10**400}, "--lr inf is not a number above 0"),
        ({"rounds": 10**30}, "--rounds 1000000000000000000000000000000 exceeds 1000000000"),
    ],
)
def test_setting_that_cannot_work_is_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config_from(values)


def test_whole_number_of_toml_stands_for_a_float() -> None:
    config = config_from({"lr": 1})
    assert config.lr == 1.0
    assert isinstance(config.lr, float)


@pytest.mark.parametrize("text", ["rounds = ", "rounds 3", "\xff\xfe", "rounds = " + "9" * 5000, "a = " + "[" * 5000])
def test_broken_file_is_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot read the run's configuration"):
        read_config(path)


def test_over_selection_asks_more_phones_than_it_waits_for() -> None:
    config = RunConfig(phones=100, cohort=10, over_select=1.25)
    assert (config.cohort_size_at(1), config.closing_updates_at(1)) == (13, 10)
    assert replace(config, phones=12).cohort_size_at(3) == 12
    assert replace(config, quorum=8).closing_updates_at(3) == 8


def test_learning_rate_decays_from_the_second_round_on() -> None:
    config = RunConfig(lr=0.8, lr_decay=0.5)
    assert [config.training(number).in_round(number).lr for number in (1, 2, 3)] == [0.8, 0.4, 0.2]


@pytest.mark.parametrize("name", names_of(ServerOptimizer))
def test_every_server_optimizer_is_taken(name: str) -> None:
    assert RunConfig(server_optimizer=name).server_optimizer == name


def test_folder_of_an_earlier_featherfed_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('model = "2nn"\ntarget_accuracy = 1.0\n')
    with pytest.raises(ConfigError, match="is a run of an earlier featherfed"):
        read_config(tmp_path / "config.toml")


# By round

CHANGING = {
    "phones": 20, "cohort": "12,6", "quorum": {1: 10, 2: 6, 4: 5}, "over_select": [1.5, 1], "epochs": "1:5,3:1",
    "batch_size": {"1": "all", "2": 10}, "lr": [0.1, 0.05], "lr_decay": 0.5, "momentum": "0,0.9",
    "uplink": "vertex-small,eden-1bit",
}  # fmt: skip


def test_settings_by_round_are_those_of_their_round() -> None:
    config = config_from(CHANGING)
    assert [config.cohort_at(number) for number in (1, 2, 9)] == [12, 6, 6]
    assert [config.cohort_size_at(number) for number in (1, 2)] == [18, 6]
    assert [config.closing_updates_at(number) for number in (1, 3, 4)] == [10, 6, 5]
    assert [config.uplink_at(number) for number in (1, 2)] == ["vertex-small", "eden-1bit"]
    told = [config.training(number) for number in (1, 2, 3)]
    assert [(each.epochs, each.batch_size, each.momentum) for each in told] == [(5, 0, 0.0), (5, 10, 0.9), (1, 10, 0.9)]
    assert [each.lr for each in told] == [0.1, 0.05, 0.05]
    assert {"cohort", "uplink", "epochs", "batch_size", "lr"} < set(BY_ROUND) < set(KNOWN)


def test_changes_of_a_round_are_found_without_making_its_settings_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_from(CHANGING)

    def make(self: Training) -> None:
        raise AssertionError("each task of each phone asks for them")

    monkeypatch.setattr(Training, "__post_init__", make)
    assert config.changes(1) == {}
    assert config.changes(2) == {"batch_size": 10, "lr": 0.05, "momentum": 0.9, "uplink": "eden-1bit"}
    assert list(config.changes(3)) == ["epochs", "batch_size", "lr", "momentum", "uplink"]


def test_settings_by_round_go_through_config_toml_and_the_command_line(tmp_path: Path) -> None:
    config = config_from(CHANGING)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert read_config(path) == config
    assert parsed(config.command()) == config
    assert "--cohort 12,6" in config.command() and "--quorum 1:10,2:6,4:5" in config.command()
    assert "--batch-size all,10" in config.command()
    assert 'cohort = "12,6"' in path.read_text()


@pytest.mark.parametrize("text", ["12,6", "1:12,2:6", "12, 6, 6"])
def test_one_schedule_has_one_configuration_however_it_is_written(text: str) -> None:
    config = config_from({"phones": 20, "cohort": [12, 6]})
    assert config_from({"phones": 20, "cohort": text}) == config
    assert parsed(f"fl-server serve --phones 20 --cohort '{text}'") == config
    assert config_from({"cohort": "10,10"}) == config_from({"cohort": 10})


def test_schedule_in_which_nothing_changes_is_the_value(tmp_path: Path) -> None:
    assert config_from({"lr": "1:0.1,7:0.10"}) == RunConfig(lr=0.1)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cohort": "12,x", "phones": 20}, "cohort = 'x' is not a whole number"),
        ({"cohort": [5, 2.5]}, "cohort = 2.5 is not a whole number"),
        ({"cohort": "5:6"}, "cohort = '5:6' says nothing of round 1"),
        ({"cohort": "10,20"}, "from round 2 on: --cohort 20 exceeds --phones 10"),
        ({"cohort": "10,4", "quorum": 5}, "from round 2 on: --quorum 5 exceeds the 4 phones of a cohort"),
        ({"cohort": {1: 10, 7: 3}, "min_updates": 4}, "from round 7 on: --min-updates 4 exceeds the 3 updates"),
        ({"epochs": "5,0"}, "from round 2 on: --epochs 0 is below 1"),
        ({"cohort": "10,4", "mode": "async", "buffer": 5}, "from round 2 on: --buffer 5 exceeds the 4 phones"),
        ({"uplink": "float32,eden-1bit", "mode": "async"}, "--uplink float32,eden-1bit changes, and with --mode async"),
        ({"downlink": ["float32", "eden-1bit"]}, r"downlink = \['float32', 'eden-1bit'\] is not a text"),
        ({"rounds": "10,20"}, "rounds = '10,20' is not a whole number"),
        ({"later": {"cohort": {2: 3}}}, "unknown setting 'later'"),
    ],
)
def test_schedule_that_could_not_be_run_is_refused_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        config_from(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cohort", "12,x"], "'x' is not a valid integer"),
        (["--cohort", "5:6"], "'5:6' says nothing of round 1: begin with 1:"),
        (["--batch-size", "all,0"], "'0' is not a number above 0, or all"),
    ],
)
def test_flag_with_a_faulty_schedule_is_refused_where_it_is_given(arguments: list[str], sentence: str) -> None:
    @click.command()
    @run_flags
    def serve(**settings: Any) -> None:
        pass

    result = CliRunner().invoke(serve, arguments)
    assert result.exit_code == 2 and sentence in result.output
