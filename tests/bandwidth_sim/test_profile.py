from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from featherfed.bandwidth_sim.drop import DropRule
from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.flags import link_flags, links_flags
from featherfed.bandwidth_sim.outage import GilbertElliott, Schedule
from featherfed.bandwidth_sim.profile import (
    Profile,
    named_profiles,
    parse_profiles,
    parse_schedule,
    profile_from_flags,
    read_profiles,
)


def test_no_flags_mean_no_link() -> None:
    assert profile_from_flags() is None


def test_bandwidth_is_up_then_down() -> None:
    one, two = profile_from_flags(bandwidth="256kbps"), profile_from_flags(bandwidth="32KiB/s/1mbps")
    assert one is not None and two is not None
    assert (one.up.rate_bytes_per_s, one.down.rate_bytes_per_s) == (32_000, 32_000)
    assert (two.up.rate_bytes_per_s, two.down.rate_bytes_per_s) == (32_768, 125_000)


def test_flags_go_over_a_named_link() -> None:
    profile = profile_from_flags(link="3g", bandwidth="256kbps", latency="80ms", drop_every="20kB", drop_how="stall")
    assert profile is not None
    assert profile.rtt_s == pytest.approx(0.16)
    assert profile.up.drop == DropRule(after_bytes=20_000, how="stall")


def test_every_named_link_has_a_source_and_both_directions() -> None:
    for profile in named_profiles().values():
        assert profile.source != "profiles.toml"
        assert profile.up.goodput_bytes_per_s > 0 and profile.down.goodput_bytes_per_s > 0


@pytest.mark.parametrize(("name", "down_kbps", "up_kbps", "rtt_ms"), [("2g", 280, 256, 800), ("fios", 20000, 5000, 4)])
def test_named_links_hold_the_published_figures(name: str, down_kbps: int, up_kbps: int, rtt_ms: int) -> None:
    profile = named_profiles()[name]
    assert profile.down.rate_bytes_per_s == down_kbps * 125
    assert profile.up.rate_bytes_per_s == up_kbps * 125
    assert profile.rtt_s * 1000 == pytest.approx(rtt_ms)


def test_own_links_come_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "links.toml"
    path.write_text('[barn]\nup = "20kbps"\ndown = "30kbps"\nmean-up = "30s"\nmean-down = "5s"\nsource = "seen"\n')
    profile = profile_from_flags(link="barn", own=read_profiles(path))
    assert profile is not None
    assert profile.up.outage == GilbertElliott(30, 5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[a]\nspeed = "1kbps"', "unknown key 'speed'"),
        ("[a]\nup = 5", "must be text with a unit"),
        ("[a", "not TOML"),
        ("a = 1", "must be a table"),
        ('[a]\nmean-up = "3s"', "belong together"),
        ('[a]\nup = "0kbps"', "lets nothing pass"),
        ('["a,b"]\nup = "9kbps"', "leave out commas"),
        ('[" a"]\nup = "9kbps"', "leave out commas and outer spaces"),
    ],
)
def test_a_wrong_own_link_is_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(LinkConfigError, match=reason):
        parse_profiles(text, "own.toml")


def test_a_schedule_is_read_in_pairs() -> None:
    assert parse_schedule("up 30s, down 5s, up 1min, down 500ms") == Schedule(((30, 5), (60, 0.5)))
    with pytest.raises(LinkConfigError, match="cannot be read at 'up 2s'"):
        parse_schedule("up 30s, down 5s, up 2s")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--bandwidth", "256"], "has no unit"),
        (["--bandwidth=-1kbps"], "not negative"),
        (["--bandwidth", "0"], "has no unit"),
        (["--bandwidth", "0kbps"], "lets nothing pass"),
        (["--link", "3gg"], "did you mean '3g'"),
        (["--drop-how", "reset"], "say when with drop-every"),
        (["--loss", "100%"], "less than 100%"),
        (["--bandwidth", "1kbps/2kbps/3kbps"], "more than two parts"),
    ],
)
def test_bad_flags_are_a_usage_error_in_one_sentence(flags: list[str], sentence: str) -> None:
    @click.command()
    @link_flags
    def command(profile: Profile | None) -> None:
        click.echo(str(profile))

    result = CliRunner().invoke(command, flags)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output


BARN = '[barn]\nup = "64kbps"\ndown = "256kbps"\nrtt = "300ms"\n'


@click.command()
@links_flags
def dealt(profile: Profile | None, profiles: list[Profile]) -> None:
    for each in profiles or [profile]:
        assert each is not None
        click.echo(f"{each.name} {each.up.rate_bytes_per_s} {each.up.delay_s:g}")


def test_own_links_may_be_dealt_and_other_flags_go_over_each(tmp_path: Path) -> None:
    path = tmp_path / "my links.toml"
    path.write_text(BARN)
    mixed = ["--profiles", str(path), "--links", "barn, 3g,256kbps", "--latency", "10ms"]
    assert CliRunner().invoke(dealt, mixed).output == "barn 8000.0 0.01\n3g 96000.0 0.01\n256kbps 32000.0 0.01\n"
    one = ["--profiles", str(path), "--link", "barn"]
    assert CliRunner().invoke(dealt, one).output == "barn 8000.0 0.15\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--profiles", "FILE"], "none of them is chosen: add --link NAME"),
        (["--profiles", "FILE", "--link", "bar"], "unknown link 'bar': did you mean 'barn'?"),
        (["--profiles", "FILE", "--links", "3g,bern"], "unknown link 'bern': did you mean 'barn'?"),
        (["--links", "3g", "--link", "3g"], "leave out one"),
        (["--links", "3g,,4g"], "unknown link ''"),
    ],
)
def test_own_links_that_are_not_chosen_or_not_there_are_a_usage_error(
    flags: list[str], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "links.toml"
    path.write_text(BARN)
    result = CliRunner().invoke(dealt, [str(path) if flag == "FILE" else flag for flag in flags])
    assert result.exit_code == 2
    assert words in result.output
