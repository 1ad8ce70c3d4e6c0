import json
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from featherfed.bandwidth_sim.cli import main


def test_list_prints_every_link_with_its_source() -> None:
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 0
    assert "WebPageTest, 2G" in result.output
    assert len(json.loads(CliRunner().invoke(main, ["list", "--json"]).output)) == len(result.output.splitlines()) - 1


def test_show_draws_outages_and_writes_a_picture(tmp_path: Path) -> None:
    png = tmp_path / "subway.png"
    result = CliRunner().invoke(main, ["show", "subway", "--png", str(png)])
    assert result.exit_code == 0
    assert "█" in result.output
    assert png.read_bytes()[:4] == b"\x89PNG"


def test_links_of_a_file_are_listed_and_shown_with_the_built_in_ones(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[barn]\nup = "64kbps"\ndown = "256kbps"\nschedule = "up 10s, down 10s"\n')
    listed = CliRunner().invoke(main, ["list", "--profiles", str(file)])
    assert "barn" in listed.output and "WebPageTest, 2G" in listed.output
    shown = CliRunner().invoke(main, ["show", "barn", "--profiles", str(file), "--seconds", "60"])
    assert shown.exit_code == 0
    assert "█" in shown.output and " " in shown.output.split("│")[1]


def test_the_self_test_prints_achieved_beside_nominal() -> None:
    result = CliRunner().invoke(main, ["test", "--bandwidth", "1mbps", "--seconds", "0.1", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output)["goodput_bytes_per_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "3gg"], "did you mean '3g'"),
        (["show", "3g", "--seconds", "0"], "must be positive"),
        (["proxy", "--listen", "9000", "--to", "127.0.0.1:1"], "HOST:PORT"),
        (["proxy", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--bandwidth", "256"], "has no unit"),
        (["proxy", "--listen", "a..b:1", "--to", "127.0.0.1:80"], "address 'a..b:1' is not HOST:PORT"),
        (["proxy", "--listen", "127.0.0.1:0", "--to", "a..b:80"], "address 'a..b:80' is not HOST:PORT"),
        (["proxy", "--listen", "127.0.0.1:0", "--to", "h:1", "--control", "65536"], "not in the range 0<=x<=65535"),
        (["test", "--latency", "3ms"], "no rate to test"),
        (["test", "--link", "4g", "--seconds", "nan"], "--seconds must be positive, not nan"),
        (["test", "--link", "4g", "--seconds", "1e400"], "--seconds must be positive, not inf"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert sentence in result.output


def test_control_port_that_is_none_is_refused() -> None:
    result = CliRunner().invoke(main, ["proxy", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:9", "--control", "99999"])
    assert result.exit_code == 2
    assert "99999 is not in the range 0<=x<=65535" in result.output


def test_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0, result.output
    assert version("featherfed") in result.output
