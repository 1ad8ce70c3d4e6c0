"""Environments of the systems that ours is compared with: their pins differ from ours, so none can live in ours.

What a system needs and we have is not installed a second time: its environment looks for what it lacks in ours, after
its own packages. Of torch that is all.
"""

import fcntl
import importlib.util
import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import featherfed
from featherfed.errors import ConfigError

_OURS = "featherfed-peers.pth"
_MADE = "featherfed-peers.made"
_LOOK = """
import importlib.metadata, importlib.util, json, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
package, *names = sys.argv[1:]
found = [name for name in names if importlib.util.find_spec(name) is not None]
print(json.dumps({"version": version(package), "found": found}))
"""


@dataclass(frozen=True, slots=True)
class System:
    """A system, and what is installed of it: `requirements`, the first of which is `package` itself, at `version`.

    `commands` are what its environment has beside Python where it was made right.
    """

    name: str
    flag: str
    package: str
    version: str
    requirements: tuple[str, ...]
    size: str
    commands: tuple[str, ...] = ()

    @property
    def default_folder(self) -> Path:
        """Where `auto` makes the environment."""
        return Path.home() / ".cache" / "featherfed" / f"{self.flag}-{self.version}"

    @property
    def series(self) -> str:
        """The version without its last number: what the comparison is written for."""
        return self.version.rpartition(".")[0]


FLOWER = System(
    "Flower", "flower", "flwr", "1.42.0", ("flwr[simulation]==1.42.0",), "500 MB",
    ("flower-superlink", "flower-supernode", "flwr"),
)  # fmt: skip
PFL = System("pfl-research", "pfl", "pfl", "0.6.0", ("pfl==0.6.0",), "300 MB")
FEDJAX = System("FedJAX", "fedjax", "fedjax", "0.0.17", ("fedjax==0.0.17", "jax==0.10.2", "jaxlib==0.10.2"), "600 MB")
SYSTEMS = {system.flag: system for system in (FLOWER, PFL, FEDJAX)}


def commands_of(system: System, where: str, tell: Callable[[str], None]) -> Path:
    """Return the folder of a system's commands: `where`, or for `auto` that of the environment that is made.

    Raises `ConfigError` where pip cannot have it.
    """
    return make(system, system.default_folder, tell) if where == "auto" else Path(where).resolve()


def make(system: System, folder: Path, tell: Callable[[str], None]) -> Path:
    """Make an environment in a folder unless it is there; return the folder of its commands.

    Raises `ConfigError` where pip cannot have the system.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = "\n".join(system.requirements)
    with open(folder / "featherfed-peers.lock", "w") as lock:
        # Who comes second waits, and finds it made.
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / _MADE
        if not made.exists() or made.read_text() != wanted:
            tell(
                f"making {system.name}'s environment in {folder}: {', '.join(system.requirements)}, some {system.size}"
            )
            _install(system, folder)
            made.write_text(wanted)
        # Where we are may have changed since it was made.
        (_site_packages(folder) / _OURS).write_text("\n".join(_ours()) + "\n")
    return folder / "bin"


def _install(system: System, folder: Path) -> None:
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for step in ([sys.executable, "-m", "venv", str(folder)], [*pip, *system.requirements]):
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
            packages = " ".join(f"'{requirement}'" for requirement in system.requirements)
            raise ConfigError(
                f"cannot make {system.name}'s environment in {folder}: {said}; where there is a package index,"
                f" python -m venv DIR && DIR/bin/pip install {packages}, and say --{system.flag} DIR/bin"
            )


def _site_packages(folder: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


def _ours() -> list[str]:
    """Return the folders of torch, of what else we use, and of our own packages."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None and torch.origin is not None, "we need it"
    folders = (
        sysconfig.get_path("purelib"), sysconfig.get_path("platlib"),
        # An environment over another one has it elsewhere.
        Path(torch.origin).parents[1], Path(featherfed.__file__).parents[1],
    )  # fmt: skip
    return list(dict.fromkeys(str(folder) for folder in folders))


def check(system: System, programs: Path, needed: Collection[str] = ()) -> None:
    """Raise `ConfigError` where a folder of commands is not that of a system as the comparison is written for it.

    `needed` are the modules that it must find beside its own.
    """
    for name in ("python", *system.commands):
        if not (programs / name).exists():
            raise ConfigError(
                f"{programs} has no {name}: name the bin folder of an environment of {system.name}, or say auto"
            )
    command = [str(programs / "python"), "-c", _LOOK, system.package, *needed]
    try:
        looked = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise ConfigError(f"{programs} has no Python that works for {system.name}: {error}") from error
    version: str = looked["version"] or ""
    if version.rpartition(".")[0] != system.series:
        raise ConfigError(
            f"{programs} has {f'{system.package} {version}' if version else f'no {system.package}'}, and the comparison"
            f" is written for {system.series}: pip install '{system.requirements[0]}' there, or say"
            f" --{system.flag} auto"
        )
    if lacking := [name for name in needed if name not in looked["found"]]:
        raise ConfigError(
            f"{system.name}'s environment {programs} lacks {' and '.join(lacking)}: install what is missing, or say"
            f" --{system.flag} auto"
        )
