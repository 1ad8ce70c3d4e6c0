import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherfed.bandwidth_sim.profile import find_profile, profile_from_flags
from featherfed.errors import ConfigError
from featherfed.fl_bench.scenario import LONGEST_NAME, PHONE_KEYS, changed_text, read_scenario
from featherfed.server.config import KNOWN

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def write(folder: Path, text: str) -> Path:
    path = folder / "scenario.toml"
    path.write_text(text)
    return path


def test_lists_make_a_grid_with_a_folder_for_each_cell(tmp_path: Path) -> None:
    cells = read_scenario(
        write(tmp_path, 'uplink = ["float32", "rotate | eden(1)"]\nseed = [0, 1, 2]\nproblem = "mnist/2nn"\n')
    )
    assert len(cells) == len({cell.name for cell in cells}) == 6
    assert {(cell.config.uplink, cell.config.seed) for cell in cells} == {
        (uplink, seed) for uplink in ("float32", "rotate | eden(1)") for seed in (0, 1, 2)
    }
    assert {cell.config.problem for cell in cells} == {"mnist/2nn"}
    assert all(set(cell.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789=-._") for cell in cells)


def test_flags_are_those_of_the_command_line(tmp_path: Path) -> None:
    (cell,) = read_scenario(write(tmp_path, 'phones = 4\nbatch-size = "all"\ndeadline = 30\nbandwidth = "256kbps"\n'))
    flags = cell.server_flags()
    assert dict(zip(flags[::2], flags[1::2], strict=True)) == {
        "--phones": "4", "--cohort": "4", "--batch-size": "all", "--deadline": "30s",
    }  # fmt: skip
    assert cell.phone_flags(0) == ["--problem", "mnist", "--bandwidth", "256kbps"]


def test_mix_of_links_is_dealt_by_its_shares(tmp_path: Path) -> None:
    (cell,) = read_scenario(write(tmp_path, "phones = 100\nlink = { 2g = 0.2, 3g = 0.5, 4g = 0.3 }\n"))
    counts = Counter(cell.link_of(shard) for shard in range(100))
    for name, share in (("2g", 20), ("3g", 50), ("4g", 30)):
        assert abs(counts[name] - share) <= 2
    assert len({cell.link_of(shard) for shard in range(5)}) > 1


def test_devices_do_not_follow_links(tmp_path: Path) -> None:
    mixes = "link = { 2g = 0.2, 3g = 0.5, 4g = 0.3 }\ndevice = { slow = 0.5, mid = 0.5 }\n"
    (cell,) = read_scenario(write(tmp_path, f"phones = 100\n{mixes}"))
    slow = sum(cell.link_of(shard) == "2g" and cell.device_of(shard) == "slow" for shard in range(100))
    assert 6 <= slow <= 14
    mixed = ["--link", cell.link_of(0), "--device", cell.device_of(0)]
    assert cell.phone_flags(0) == ["--problem", "mnist", *mixed]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("phnoes = 3", "unknown key 'phnoes'; did you mean 'phones'"),
        ("seed = []", "seed is an empty list"),
        ("phones = 'ten'", "phones = 'ten' is not a whole number"),
        ("deadline = '30s'", "deadline = '30s' is not a number"),
        ("problem = 'mnist/resnet'", "unknown model 'resnet'"),
        ("uplink = ['float32', 'rotat']", "unknown codec stage 'rotat'"),
        ("partition = 'random'", "unknown partition 'random'"),
        ("as = 'threads'", "as = 'threads' is not one of processes, swarm, virtual"),
        ("link = '9g'", "unknown link '9g'"),
        ("link = {}", "link = {} is not the name of a link, or several with shares above 0"),
        ("link = { 2g = 0 }", "is not the name of a link, or several with shares above 0"),
        ("link = { 2g = 'half' }", "is not the name of a link, or several with shares above 0"),
        ("bandwidth = 256", "bandwidth = 256 is not a rate with its unit"),
        ("device = { slow = 0 }", "is not the name of a device, or several with shares above 0"),
        ("dropout = 1.5", "dropout = 1.5 is not a share"),
        ("away = 'soon'", "soon"),
        ("train = 'adam'", "train = 'adam' is not sgd or none"),
        ("seed = [1, 1]", "two cells are the same"),
        ("device = 'warp'", "device 'warp' is not one of"),
        ("phones =", "cannot read the scenario"),
    ],
)
def test_scenario_that_can_not_run_is_refused_with_its_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_scenario(write(tmp_path, text))
    assert words in str(refused.value)
    assert "scenario.toml" in str(refused.value)


@pytest.mark.parametrize("line", ['as = "ships"', 'as = ["swarm", "ships"]', "as = 1"])
def test_way_that_makes_no_sense_is_refused_also_where_another_is_asked_for(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match="is not one of processes, swarm, virtual"):
        read_scenario(write(tmp_path, line), way="virtual")


def test_missing_scenario_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the scenario"):
        read_scenario(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_of_ours_can_be_read(path: Path) -> None:
    assert read_scenario(path)


def test_change_that_is_no_toml_is_named_and_not_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('problem = "mnist/lite"')
    with pytest.raises(ConfigError, match=r"--set 'uplink=float32' is not a line of TOML.* text stands in quotes"):
        read_scenario(path, changes=["uplink=float32"])
    assert read_scenario(path, changes=['uplink="float16"'])[0].config.uplink == "float16"


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "s.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_scenario(path)
    return str(raised.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('dropout = "10%"', "dropout = '10%' is not a share from 0 to below 1, like 0.1"),
        ("dropout = true", "dropout = True is not a share"),
        ("dropout = nan", "dropout = nan is not a share"),
        ('link = [["3g", "4g"]]', "link = ['3g', '4g'] is not one name, or names with their shares"),
        ("link = 5", "link = 5 is not one name"),
        ('link = "5g-turbo"', "link = '5g-turbo': unknown link '5g-turbo'"),
        ('link = "0kbps"', "link = '0kbps': unknown link '0kbps'"),
        ('link = { "3g" = inf }', "shares above 0"),
        ("bandwidth = 256", "bandwidth = 256 is not a rate with its unit, like '256kbps'"),
        ('bandwidth = "256"', "bandwidth = '256': rate '256' has no unit"),
        ("away = 60", "away = 60 is not a time with its unit, like '60s'"),
        ('away = "soon"', "away: duration 'soon'"),
        ("train = { sgd = 1 }", "train = {'sgd': 1} is not sgd or none"),
        ("as = 1", "as = 1 is not processes, swarm or virtual"),
        ("lr = 1" + "0" * 400, "is not a number"),
        ("device = 2020-01-01", "device = datetime.date(2020, 1, 1) is not one name"),
        ("x = " + "[" * 5000, "cannot read the scenario"),
        ("lr = " + "1" * 5000, "cannot read the scenario"),
    ],
)
def test_value_of_a_wrong_kind_names_its_key(line: str, words: str, tmp_path: Path) -> None:
    assert words in refused(tmp_path, line)


def test_rate_is_a_link_as_it_is_a_bandwidth(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('phones = 4\nlink = { "256kbps" = 0.5, "1mbps/2mbps" = 0.5 }\n')
    (cell,) = read_scenario(path)
    links = {cell.link_of(shard) for shard in range(4)}
    assert links == {"256kbps", "1mbps/2mbps"}
    profile = find_profile("1mbps/2mbps")
    assert (profile.up.rate_bytes_per_s, profile.down.rate_bytes_per_s) == (125_000, 250_000)
    assert profile_from_flags(link="256kbps").up == profile_from_flags(bandwidth="256kbps").up  # type: ignore[union-attr]


def test_cell_of_many_long_values_has_a_name_that_a_file_system_takes(tmp_path: Path) -> None:
    mixes = [{"2g": 0.25, "3g": 0.25, "4g": 0.25, "lte": share} for share in (0.25, 0.26)]
    document = {"uplink": ["rotate | eden(1)", "float32"], "link": mixes, "device": [{"slow": 1, "mid": 2}, "fast"]}
    path = tmp_path / "s.toml"
    path.write_text(tomlkit.dumps(document))
    names = [cell.name for cell in read_scenario(path)]
    assert len(set(names)) == 8
    assert max(map(len, names)) <= LONGEST_NAME
    for name in names:
        (tmp_path / f"{name}.logs").mkdir()


TEXTS = st.text(max_size=8) | st.sampled_from(["3g", "256kbps", "none", "slow", "10%", "60s", "virtual", "iid", "all"])
PLAIN = st.one_of(
    st.booleans(), st.integers(), st.integers(-3, 3), st.floats(), TEXTS, st.dates(), st.dates().map(lambda day: [day])
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=4
)
KEYS = [*PHONE_KEYS, *KNOWN]


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3))
def test_scenario_of_any_values_is_read_or_refused_in_a_sentence(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "s.toml"
    try:
        path.write_text(tomlkit.dumps(content), encoding="utf-8")
        tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, tomlkit.exceptions.TOMLKitError):
        return  # tomlkit cannot write it, or not so that it can be read
    try:
        cells = read_scenario(path)
    except ConfigError as error:
        assert str(error).startswith((f"{path}: ", "cannot read the scenario"))
        return
    for cell in cells:
        assert len(cell.name) <= LONGEST_NAME
        for shard in range(min(3, cell.config.phones)):
            assert all(isinstance(part, str) for part in cell.phone_flags(shard))
        assert all(isinstance(part, str) for part in cell.server_flags())
        if cell.config.phones < 50:
            cell.fleet().options(cell.config)


def test_settings_of_the_problem_s_own_stand_under_set_and_may_vary(tmp_path: Path) -> None:
    path = write(tmp_path, "set.shift = [0, 1]\nrounds = 2\n")
    assert [(cell.name, cell.config.set) for cell in read_scenario(path)] == [
        ("set.shift=0", {"shift": 0}), ("set.shift=1", {"shift": 1}),
    ]  # fmt: skip
    (cell,) = read_scenario(path, changes=["set.shift = 2"])
    assert cell.config.set == {"shift": 2}
    assert "shift=2" in cell.server_flags()
    text = changed_text(path, ["set.shift = 2"])
    assert "shift = 2" in text and "[0, 1]" not in text
    with pytest.raises(ConfigError, match=r"--set shift=28 exceeds 27"):
        read_scenario(write(tmp_path, "set.shift = 28\n"))


def test_list_is_a_grid_and_a_table_or_text_a_value_by_round(tmp_path: Path) -> None:
    text = 'phones = 20\ncohort = { 1 = 12, 5 = 6 }\nepochs = "5,1"\nseed = [0, 1]\nuplink = "float32,eden-1bit"\n'
    cells = read_scenario(write(tmp_path, text))
    assert [cell.config.seed for cell in cells] == [0, 1]
    for cell in cells:
        assert [cell.config.cohort_at(number) for number in (1, 4, 5)] == [12, 12, 6]
        assert [cell.config.training(number).epochs for number in (1, 2)] == [5, 1]
        assert cell.config.uplink_at(3) == "eden-1bit"


def test_grid_may_vary_values_by_round(tmp_path: Path) -> None:
    text = 'phones = 20\ncohort = [12, "12,6", { 1 = 12, 5 = 6 }, [9, 3]]\nbatch_size = ["all", "all,10"]\n'
    cells = read_scenario(write(tmp_path, text))
    cohorts = [tuple(cell.config.cohort_at(number) for number in (1, 2, 5)) for cell in cells[::2]]
    assert cohorts == [(12, 12, 12), (12, 6, 6), (12, 12, 6), (9, 3, 3)]
    assert [cell.config.training(2).batch_size for cell in cells[:2]] == [0, 10]
    assert cells[4].name == "cohort=1_12_5_6-batch_size=all"
    assert cells[5].keys == {"cohort": "1:12,5:6", "batch_size": "all,10"}
    assert cells[5].server_flags()[:4] == ["--phones", "20", "--cohort", "1:12,5:6"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cohort = { 5 = 6 }", "cohort = {'5': 6} says nothing of round 1"),
        ("cohort = '12,x'", "cohort = 'x' is not a whole number"),
        ("seed = '0,1'", "seed = '0,1' is not a whole number"),
        ("uplink = { 1 = 'float32', 2 = 'rotat' }", "unknown codec stage 'rotat'"),
        ("uplink = 'float32,mask(1/4)'\naggregate = 'median'", "median"),
        ("rounds = { 1 = 3 }", "rounds = {'1': 3} is not a whole number"),
    ],
)
def test_value_by_round_that_could_not_be_run_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_scenario(write(tmp_path, text + "\n"))
    assert words in str(caught.value)
