from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featherfed.edge_client.cli import main


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def sentence(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), "anything else would be a traceback"
    error = result.output.strip().splitlines()[-1]
    assert error.startswith("Error: ")
    return error.removeprefix("Error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--serverr", "x"], "No such option '--serverr'"),
        (["--server", "http://127.0.0.1:8765"], "is not an address like ws://127.0.0.1:8765"),
        (["--server", "ws://127.0.0.1:99999"], "is not an address like ws://127.0.0.1:8765"),
        (["--server", "ws://:8765"], "is not an address like"),
        (["--server", "https://phones.example"], "phones speak WebSocket, so begin with wss:// there"),
        (["--server", "ws://foo..bar:1"], "--server 'ws://foo..bar:1' is not an address like"),
        (["--server", f"ws://{'a' * 64}.example:1"], "is not an address like"),
        (["--server", "ws://a b:1"], "is not an address like"),
        (["--server", "ws://h\udcff:1"], "is not an address like"),
        (["--server", "ws://h:1/#part"], "is not an address like"),
        (["--server", "ws://ann:secret@h:1"], "--server names a user before h; a phone shows a token, which --token"),
        (["--shard", "1/" + "9" * 5000], "is not auto or INDEX/OF"),
        (["--drop-every", "1e400kB"], "size '1e400kB' must be finite and not negative"),
        (["--drop-every", "1e308GB"], "size '1e308GB' must be finite and not negative"),
        (["--latency", "1e308s"], "duration '1e308s' must be finite and not negative"),
        (["--shard", "7"], "'7' is not auto or INDEX/OF"),
        (["--shard", "7/7"], "with INDEX from 0 to OF - 1, like 7/100"),
        (["--shard", "²/7"], "'²/7' is not auto or INDEX/OF"),
        (["--name", ""], "--name '' is not 1 to 64 printable characters"),
        (["--name", "a\tb"], "is not 1 to 64 printable characters"),
        (["--device", "warp"], "device 'warp' is not one of cpu, cuda"),
        (["--train", "adam"], "'adam' is not one of 'sgd', 'none'"),
        (["--patience", "10"], "duration '10' has no unit: write it like 80ms, 30s or 5min"),
        (["--bandwidth", "256"], "rate '256' has no unit: write it like 256kbps"),
        (["--link", "3gg"], "did you mean '3g'"),
        (["--ca", "/nowhere"], "'/nowhere' does not exist"),
        (["--state-dir", __file__], "cannot use the state directory"),
    ],
)
def test_wrong_flag_of_a_phone_is_one_sentence(arguments: list[str], words: str) -> None:
    assert words in sentence(invoke("run", *arguments), 2)


def test_server_that_is_away_is_named_with_both_ways_on() -> None:
    # Port 9 (discard) is reserved: nobody serves there.
    result = invoke("run", "--train", "none", "--server", "ws://127.0.0.1:9", "--patience", "1ms")
    error = sentence(result, 1)
    assert "no server at ws://127.0.0.1:9 for 0 s" in error
    assert "start it with fl-server serve, or name another with --server" in error


def test_unreadable_state_is_told_before_the_phone_joins(tmp_path: Path) -> None:
    (tmp_path / "phone").write_bytes(b"\xc1")
    error = sentence(invoke("run", "--train", "none", "--state-dir", str(tmp_path)), 2)
    assert error.startswith(f"cannot read {tmp_path / 'phone'}: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing option '--count'"),
        (["--count", "0"], "0 is not in the range x>=1"),
        (["--count", "2", "--links", "2g,9g"], "unknown link '9g'"),
        (["--count", "2", "--devices", "slow,warp"], "device 'warp' is not one of cpu, cuda"),
        (["--count", "2", "--devices", ""], "device '' is not one of cpu, cuda"),
    ],
)
def test_wrong_flag_of_a_swarm_is_one_sentence(arguments: list[str], words: str) -> None:
    assert words in sentence(invoke("swarm", *arguments), 2)
