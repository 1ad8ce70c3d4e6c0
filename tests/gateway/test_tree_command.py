"""What `fl-server tree` says to wrong flags: one sentence, the way out, and exit code 2."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from featherfed.commands.server import main
from featherfed.commands.tree import tree
from featherfed.errors import ConfigError
from featherfed.gateway import ray_cluster
from featherfed.gateway.serving import GatewayPlan
from featherfed.server.config import config_from
from featherfed.server.storage.run_folder import RunFolder, create


def refused(*flags: str) -> str:
    result = CliRunner().invoke(main, ["tree", "--no-dashboard", "--problem", "digits", *flags])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split("Error: ")[1].split())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--gateways N says how many gateways there are; without any it is fl-server serve"),
        (["--gateways", "11"], "--gateways 11 exceeds --phones 10"),
        (["--gateways", "2", "--quorum", "3"], "it goes with --mode sync, and without --quorum"),
        (["--gateways", "2", "--gateway-port", "65535"], "leaves no port for the last of 2 gateways"),
        (["--gateways", "2", "--tls-cert", "CERT"], "TLS needs both --tls-cert and --tls-key"),
        (["--gateways", "2", "--gateway-ca", "CERT"], "--gateway-ca is for a root with --tls-cert"),
        (["--gateways", "2", "--host", "0.0.0.0"], "would let anybody in; give each phone a token first"),
        (["--gateways", "2", "--uplink", "eden("], "eden("),
    ],
)
def test_wrong_flags_are_told_before_anything_is_made(
    tmp_path: Path, authority: dict[str, Path], flags: list[str], words: str
) -> None:
    given = [str(authority["cert"]) if flag == "CERT" else flag for flag in flags]
    assert words in refused("--port", "0", "--runs", str(tmp_path / "runs"), *given)
    assert not (tmp_path / "runs").exists()


def test_taken_gateway_port_is_told_before_the_run_has_a_folder(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = refused("--gateways", "1", "--port", "0", "--runs", str(tmp_path / "runs"), "--gateway-port", port)
    assert words == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another --gateway-port, or 0 for a free one"
    )
    assert not (tmp_path / "runs").exists()


def test_run_without_gateways_is_not_resumed_as_a_tree(tmp_path: Path) -> None:
    folder = create(tmp_path, "run", config_from({"problem": "digits"}))
    (folder.path / "run.sqlite").touch()
    result = CliRunner().invoke(main, ["tree", "--resume", str(folder.path)])
    assert result.exit_code == 2
    assert "has no gateways; go on with fl-server serve --resume" in " ".join(result.output.split())


def test_no_ray_and_no_cluster_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs ray: pip install 'featherfed[ray]'")
    with pytest.raises(ConfigError, match=r"no Ray cluster at '127\.0\.0\.1:1'"), ray_cluster.cluster("127.0.0.1:1"):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "--ray needs Ray: pip install 'featherfed[ray]'" in refused(
        "--gateways", "2", "--port", "0", "--runs", str(tmp_path), "--ray", "auto"
    )


def test_help_has_every_flag_of_serve_but_those_of_a_single_gateway() -> None:
    of_serve = {name for option in main.commands["serve"].params for name in option.opts}
    # Browsers come to a server of its own.
    assert of_serve - {"--gateway-of", "--gateway", "--gateway-token", "--phone-page", "--phone-token"} <= {
        name for option in tree.params for name in option.opts
    }


def test_gateways_are_told_how_the_tree_keeps_and_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[GatewayPlan] = []

    class NoKeeper:
        beside = None

        def __init__(self, *, plan: Callable[[int, str, RunFolder], GatewayPlan], **_: object) -> None:
            plans.append(plan(1, "ws://127.0.0.1:1", RunFolder(tmp_path)))

    monkeypatch.setattr("featherfed.gateway.tree.Keeper", NoKeeper)
    monkeypatch.setattr("featherfed.gateway.tree.serve_and_print", lambda run: None)
    flags = ["--gateways", "2", "--no-durable", "--decode-threads", "3", "--gateway-port", "0"]
    result = CliRunner().invoke(main, ["tree", "--no-dashboard", "--problem", "digits", *flags])
    assert result.exit_code == 0, result.output
    assert [(plan.place, plan.durable, plan.decode_threads) for plan in plans] == [((1, 2), False, 3)]
