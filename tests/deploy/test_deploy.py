"""What is deployed is correct, as far as that can be told without a Docker engine."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from ..programs import program

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return content


def test_compose_file_is_valid_for_docker_compose(tmp_path: Path) -> None:
    tool = program("docker-compose", "apt-get install docker-compose")
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DASHBOARD_TOKEN": "12345678", "GRAFANA_PASSWORD": "x",
    }  # fmt: skip
    checked = subprocess.run(
        [tool, "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"],
        capture_output=True, text=True, env=environment, timeout=60,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr


def test_compose_commands_are_commands_of_this_release() -> None:
    from featherfed.commands.server import main as server
    from featherfed.edge_client.cli import main as edge

    for service, main in (("server", server), ("phones", edge)):
        name, *flags = compose()["services"][service]["command"]
        command = main.get_command(click.Context(main), name)
        assert command is not None
        flags = [flag for flag in flags if not flag.startswith("--tokens=")]  # a file that exists only there
        command.make_context(name, flags)


def test_compose_services_name_files_that_are_here() -> None:
    services = compose()["services"]
    assert {"server", "phones", "prometheus", "grafana"} == services.keys()
    dockerfile = Path(services["server"]["build"]["context"], services["server"]["build"]["dockerfile"])
    assert (DEPLOY / dockerfile).exists()
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./") and source != "./dashboard-token":
                assert (DEPLOY / source).exists(), source
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "nothing is open to the network by default"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, continuation lines joined, comments left out."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def test_dockerfile_is_small_non_root_and_copies_what_is_here() -> None:
    found = instructions()
    assert next(value for name, value in found if name == "FROM").endswith(" AS build")
    user = [value for name, value in found if name == "USER"]
    assert user and re.fullmatch(r"[1-9]\d*:[1-9]\d*", user[-1]), "the last stage does not run as root"
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name, value in found:
        if name == "COPY" and "--from" not in value:
            for source in shlex.split(value)[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, f".dockerignore keeps {source} out"
    assert "http" not in next(value for name, value in found if name == "ARG")


def test_image_has_every_folder_that_featherfed_links_to() -> None:
    copied = {source for name, value in instructions() if name == "COPY" for source in shlex.split(value)[:-1]}
    linked = {path.name for path in (ROOT / "featherfed").iterdir() if path.is_symlink()}
    assert "server" in linked
    assert linked <= copied


def test_dockerfile_passes_its_linter() -> None:
    tool = program("dockerfile-utils", "make web", at=ROOT / "web" / "node_modules" / ".bin")
    checked = subprocess.run([tool, "lint", DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0 and not checked.stdout.strip(), checked.stdout + checked.stderr


@pytest.mark.parametrize("unit", sorted(path.name for path in DEPLOY.glob("*.service")))
def test_systemd_accepts_the_unit(unit: str, tmp_path: Path) -> None:
    tool = program("systemd-analyze", "apt-get install systemd")
    # The same unit, with programs that are here.
    programs = Path(sys.executable).parent
    for path in DEPLOY.glob("*.service"):
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/featherfed/bin", str(programs)))
    checked = subprocess.run([tool, "verify", tmp_path / unit], capture_output=True, text=True, timeout=60)
    # It also speaks of the units of the machine; what it says of ours is what counts.
    ours = [line for line in checked.stderr.splitlines() if "featherfed" in line or str(tmp_path) in line]
    assert checked.returncode == 0 and not ours, checked.stderr


def test_unit_starts_a_command_of_this_release() -> None:
    from featherfed.commands.server import main as server

    for path in DEPLOY.glob("*.service"):
        start = re.search(r"^ExecStart=(.*)$", path.read_text(), re.MULTILINE)
        assert start is not None
        _, name, *flags = shlex.split(start[1])
        command = server.get_command(click.Context(server), name)
        assert command is not None
        command.make_context(name, [flag for flag in flags if not flag.startswith("$")])


def test_vendored_chart_library_is_what_the_lock_file_says() -> None:
    import json

    lock = json.loads((ROOT / "web" / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    version = lock["packages"]["node_modules/uplot"]["version"]
    vendor = ROOT / "server" / "dashboard" / "static" / "vendor"
    for name in ("uplot.js", "uplot.css"):
        assert (vendor / name).read_text().startswith(f"/* uPlot {version}, MIT")
    assert "Permission is hereby granted" in (vendor / "uplot.LICENSE").read_text()


def test_the_phone_of_the_page_is_built_of_what_the_lock_file_says() -> None:
    import json

    lock = json.loads((ROOT / "web" / "package-lock.json").read_text())["packages"]
    static = ROOT / "server" / "phone_page" / "static"
    for name in ("page.js", "worker.js"):
        head = (static / name).read_text().splitlines()[0]
        for package in ("@msgpack/msgpack", "@noble/hashes"):
            assert f"{package} {lock[f'node_modules/{package}']['version']}" in head
    assert (static / "LICENSES").read_text().count("ermission") >= 2
    for name in ("index.html", "page.css", "icon.svg"):
        assert (static / name).read_bytes() == (ROOT / "web" / "phone" / "page" / name).read_bytes()
