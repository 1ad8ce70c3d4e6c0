"""Links that a user has measured, in a scenario: a file beside it, or tables in it."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from featherfed.bandwidth_sim.flags import links_flags
from featherfed.bandwidth_sim.profile import Profile
from featherfed.errors import ConfigError
from featherfed.fl_bench.cells import FACTS
from featherfed.fl_bench.cli import main
from featherfed.fl_bench.own_links import text_of
from featherfed.fl_bench.results import read_runs
from featherfed.fl_bench.scenario import SCENARIO, Cell, changed_text, read_scenario

VILLAGE = '[village]\nup = "64kbps"\ndown = "256kbps"\nrtt = "300ms"\nsource = "measured in May"\n'
FILE = VILLAGE + '\n[barn]\nup = "20kbps"\ndown = "30kbps"\n'
RUN = 'problem = "digits/tiny"\nphones = 4\ncohort = 2\nrounds = 1\nepochs = 1\ntrain = "none"\n'
MIX = 'link = { village = 0.5, "3g" = 0.5 }\n'


def written(folder: Path, text: str, links: str = FILE) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "my_links.toml").write_text(links)
    path = folder / "rural.toml"
    path.write_text(RUN + text)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def names(cell: Cell) -> set[str | None]:
    links = cell.fleet().links
    assert isinstance(links, dict)
    return {each and each.name for each in links}


def test_file_is_found_beside_its_scenario_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "here", MIX + 'profiles = "my_links.toml"\n')
    monkeypatch.chdir("/")
    (cell,) = read_scenario(path)
    links = cell.fleet().links
    assert isinstance(links, dict)
    assert {*links.values()} == {0.5}
    village = next(each for each in links if each is not None and each.name == "village")
    assert (village.up.rate_bytes_per_s, village.rtt_s) == (8000, 0.3)


def test_tables_in_the_scenario_itself_are_the_same_links(tmp_path: Path) -> None:
    of_file = read_scenario(written(tmp_path / "a", MIX + 'profiles = "my_links.toml"\n'))
    tables = VILLAGE.replace("[village]", "[profiles.village]")
    assert read_scenario(written(tmp_path / "b", MIX + tables)) == of_file


def test_links_that_no_phone_is_on_are_no_part_of_a_cell(tmp_path: Path) -> None:
    path = written(tmp_path, 'profiles = "my_links.toml"\nlink = ["3g", "village", { barn = 1, "3g" = 1 }]\n')
    assert [[*cell.own_links] for cell in read_scenario(path)] == [[], ["village"], ["barn"]]


@pytest.mark.parametrize("way", ["processes", "swarm"])
def test_real_phones_are_given_the_same_links_and_devices(tmp_path: Path, way: str) -> None:
    more = f'profiles = "my_links.toml"\nas = "{way}"\ndevice = {{ slow = 0.5, fast = 0.5 }}\n'
    (cell,) = read_scenario(written(tmp_path, MIX + more))
    links = tmp_path / "links.toml"
    links.write_text(text_of(cell.own_links))

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("rest", nargs=-1)
    @links_flags
    def phones(rest: tuple[str, ...], profile: Profile | None, profiles: list[Profile]) -> None:
        for each in profiles or [profile]:
            assert each is not None
            click.echo(f"{each.name} {each.up.rate_bytes_per_s:g}")

    told = [cell.swarm_flags()] if way == "swarm" else [cell.phone_flags(shard) for shard in range(4)]
    runs = [CliRunner().invoke(phones, ["--profiles", str(links), *flags]) for flags in told]
    assert [run.exit_code for run in runs] == [0] * len(told)
    rates = {"village": "8000", "3g": "96000"}
    assert "".join(run.output for run in runs).split("\n")[:-1] == [
        f"{cell.link_of(shard)} {rates[cell.link_of(shard)]}" for shard in range(4)
    ]
    if way == "swarm":
        dealt = dict(zip(told[0][::2], told[0][1::2], strict=True))
        assert dealt["--devices"] == ",".join(cell.device_of(shard) for shard in range(4))
        assert dealt["--shard"] == "0/4"


@pytest.mark.parametrize(
    ("line", "links", "words"),
    [
        ('profiles = "mine.toml"', FILE, "mine.toml: No such file or directory"),
        ('profiles = "my_links.toml"', "[village", "my_links.toml is not TOML"),
        ('profiles = "my_links.toml"', "[village]\nup = 64", "village.up must be text with a unit, not 64"),
        ('profiles = "my_links.toml"', '[village]\nspeed = "9kbps"', "'village': unknown key 'speed'"),
        ('profiles = "my_links.toml"', '[vilage]\nup = "9kbps"', "unknown link 'village': did you mean 'vilage'?"),
        ('profiles = ["my_links.toml"]', FILE, "to try several links give link a list"),
        ("profiles = 3", FILE, "profiles = 3 is neither a TOML file with links"),
        ('profiles = { village = "64kbps" }', FILE, "profiles: 'village' must be a table like [village]"),
        ('profiles = "a\\u0000b"', FILE, "profiles = 'a\\x00b'"),
    ],
)
def test_link_that_is_not_there_is_said_with_its_file(tmp_path: Path, line: str, links: str, words: str) -> None:
    path = written(tmp_path, f'link = "village"\n{line}\n', links)
    with pytest.raises(ConfigError) as refused:
        read_scenario(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_results_have_their_links_and_need_the_file_no_more(tmp_path: Path) -> None:
    comments = 'profiles = "my_links.toml"  # measured\n[set]\nshift = 1\n'
    path = written(tmp_path / "a", MIX + comments)
    copy = tmp_path / SCENARIO
    copy.write_text(changed_text(path, ["seed = [3, 4]"]))
    assert read_scenario(copy) == read_scenario(path, changes=["seed = [3, 4]"])
    assert names(read_scenario(copy)[0]) == {"village", "3g"}


def test_changed_link_is_no_result_to_go_on_with_and_compare_says_what_changed(tmp_path: Path) -> None:
    path = written(tmp_path, 'profiles = "my_links.toml"\nlink = "village"\n')
    run = ["run", path, "--virtual", "--out", tmp_path / "before"]
    assert call(*run).exit_code == 0
    # Another link of the file, and what it says of itself, changes nothing of this run.
    (tmp_path / "my_links.toml").write_text(FILE.replace("20kbps", "21kbps").replace("May", "June"))
    assert call(*run, "--resume").exit_code == 0
    (tmp_path / "my_links.toml").write_text(FILE.replace("64kbps", "32kbps"))
    refused = call(*run, "--resume")
    assert refused.exit_code == 2
    was, is_now = (f"village = down 256kbps, rtt 300ms, up {rate}" for rate in ("64kbps", "32kbps"))
    assert f"rural/run is finished, with profiles = {was} where the scenario has {is_now}: choose" in refused.output

    assert call("run", path, "--virtual", "--out", tmp_path / "after").exit_code == 0
    folders = [tmp_path / "before" / "rural", tmp_path / "after" / "rural"]
    (tmp_path / "my_links.toml").unlink()
    compared = call("compare", *folders)
    assert compared.exit_code == 0
    assert f"not the same settings: profiles {was} → {is_now}" in compared.stderr
    assert len({strategy.name for strategy in read_runs(folders)}) == 2
    facts = json.loads((folders[0] / "run" / FACTS).read_text())
    assert facts["phones"]["profiles"]["village"]["up"] == "64kbps"
