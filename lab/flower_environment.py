"""Flower's own Python environment: its pins are older than ours, so the two cannot live in one.

torch is not installed a second time: Flower's environment looks for what it lacks in ours, after its own packages.
"""

import fcntl
import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import featherfed
from featherfed.errors import ConfigError

VERSION = "1.42.0"
REQUIREMENT = f"flwr[simulation]=={VERSION}"
PROGRAMS = ("flower-superlink", "flower-supernode", "flwr")
_OURS = "featherfed-peers.pth"
_MADE = "featherfed-peers.made"
_LOOK = """
import importlib.metadata, importlib.util, json
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
found = {name: importlib.util.find_spec(name) is not None for name in ("ray", "torch", "featherfed")}
print(json.dumps({"flwr": version("flwr"), **found}))
"""


def default_folder() -> Path:
    """Return where `--flower auto` makes the environment."""
    return Path.home() / ".cache" / "featherfed" / f"flower-{VERSION}"


def make(folder: Path, tell: Callable[[str], None]) -> Path:
    """Make the environment in a folder unless it is there; return the folder of its commands.

    Raises `ConfigError` where pip cannot have Flower.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "featherfed-peers.lock", "w") as lock:
        # Who comes second waits, and finds it made.
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / _MADE
        if not made.exists() or made.read_text() != REQUIREMENT:
            tell(f"making Flower's environment in {folder}: {REQUIREMENT}, some 500 MB")
            _install(folder)
            made.write_text(REQUIREMENT)
        # Where we are may have changed since it was made.
        (_site_packages(folder) / _OURS).write_text("\n".join(_ours()) + "\n")
    return folder / "bin"


def _install(folder: Path) -> None:
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
            raise ConfigError(
                f"cannot make Flower's environment in {folder}: {said}; where there is a package index,"
                f" python -m venv DIR && DIR/bin/pip install '{REQUIREMENT}', and say --flower DIR/bin"
            )


def _site_packages(folder: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


def _ours() -> list[str]:
    """Return the folders of torch and of our own packages."""
    folders = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), Path(featherfed.__file__).parents[1])
    return list(dict.fromkeys(str(folder) for folder in folders))


def check(programs: Path, *, train: bool, simulate: bool) -> None:
    """Raise `ConfigError` where a folder of commands is not that of a Flower that the comparison is written for."""
    for name in PROGRAMS:
        if not (programs / name).exists():
            raise ConfigError(f"{programs} has no {name}: name the bin folder of an environment of Flower, or say auto")
    command = [str(programs / "python"), "-c", _LOOK]
    try:
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise ConfigError(f"{programs} has no Python that works beside {PROGRAMS[0]}: {error}") from error
    series = VERSION.rpartition(".")[0]
    version: str = found["flwr"] or ""
    if version.rpartition(".")[0] != series:
        raise ConfigError(
            f"{programs} has {f'flwr {version}' if version else 'no flwr'}, and the comparison is written for {series}:"
            f" pip install '{REQUIREMENT}' there, or say --flower auto"
        )
    needed = [*(["torch", "featherfed"] if train else []), *(["ray"] if simulate else [])]
    lacking = [name for name in needed if not found[name]]
    if lacking:
        raise ConfigError(
            f"Flower's environment {programs} lacks {' and '.join(lacking)}: install what is missing,"
            " say --flower auto, or leave it out with --part off"
        )
