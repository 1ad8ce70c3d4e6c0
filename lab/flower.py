"""The same rounds in Flower (flwr): an app made of `lab/flower_app`, and the processes that run it."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from featherfed.errors import LocalError
from lab.children import listens

PORT, CLIENT_PORT = 8000, 9100
START_S = 60.0
APP = Path(__file__).parent / "flower_app"


@dataclass(frozen=True, slots=True)
class Noted:
    """What the server app wrote down: each round's seconds, and its end with what the loopback had carried."""

    seconds: list[float]
    ends: list[tuple[float, int]]
    updates: list[int]
    accuracy: float | None
    answered: int
    """Bytes of what phones answered, where their app notes them: all rounds, as it is serialised."""


class Flower:
    """SuperLink, SuperNodes and a run, each started with its output in `folder`."""

    def __init__(self, programs: Path, folder: Path) -> None:
        """`programs` is the folder of Flower's commands, as `environments.commands_of` has found it."""
        self._programs, self._folder = programs, folder
        self._notes = folder / "notes.jsonl"
        home = folder / "home"
        home.mkdir(parents=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "local"\n[superlink.local]\naddress = "127.0.0.1:{PORT}"\ninsecure = true\n'
        )
        self._environment = {
            "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home), "FLWR_HOME": str(home), "OMP_NUM_THREADS": "1",
            # Nothing calls home.
            "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        """Start one of Flower's programs."""
        with open(self._folder / f"{name}.log", "w") as log:
            process = subprocess.Popen(
                [str(self._programs / command[0]), *command[1:]], stdout=log, stderr=log, cwd=self._folder,
                env=self._environment,
            )  # fmt: skip
        self.running.append(process)
        return process

    def start_server(self, *, simulation: bool = False) -> "subprocess.Popen[bytes]":
        """Start the SuperLink, of phones or of Flower's simulation; returns when it listens."""
        flags = ["--simulation"] if simulation else []
        process = self.start("superlink", "flower-superlink", "--insecure", *flags)
        log, until_s = self._folder / "superlink.log", time.monotonic() + START_S
        while not listens(PORT):
            if time.monotonic() > until_s or process.poll() is not None:
                raise LocalError(f"the SuperLink did not start: {log.read_text(errors='replace')[-400:]}")
            time.sleep(0.1)
        return process

    def start_phone(self, number: int, phones: int) -> "subprocess.Popen[bytes]":
        """Start one SuperNode."""
        return self.start(
            f"supernode-{number}", "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{PORT}",
            "--port", str(CLIENT_PORT + number), "--node-config", f"partition-id={number} num-partitions={phones}",
        )  # fmt: skip

    def start_run(self, settings: dict[str, Any], *, simulation: bool = False) -> "subprocess.Popen[bytes]":
        """Start the rounds; the process ends with them. `settings` are what the apps in `flower_app` read."""
        app = self._folder / "app"
        shutil.copytree(APP, app / "peer", ignore=shutil.ignore_patterns("__pycache__"))
        client = "training_client" if settings["train"] else "noise_client"
        components = ("secagg_server", "secagg_client") if settings["secure"] else ("server_app", client)
        (app / "pyproject.toml").write_text(_project(*components, {**settings, "notes": str(self._notes)}))
        flags = []
        if simulation:
            # One client a core, where Flower's default is one for every two.
            resources = f"client-resources-num-cpus=1 init-args-num-cpus={os.cpu_count() or 1}"
            flags = ["--federation-config", f"num-supernodes={settings['phones']} {resources}"]
        return self.start("run", "flwr", "run", str(app), "local", "--stream", *flags)

    def noted(self) -> Noted:
        """Return what the rounds were; raises `LocalError` where they did not come to their end."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        notes = [json.loads(line) for line in lines]
        begun, ended, done = ([note for note in notes if note["what"] == what] for what in ("begins", "ends", "done"))
        if not done:
            log = (self._folder / "run.log").read_text(errors="replace")
            raise LocalError(f"Flower finished {len(ended)} rounds and not all: {log.strip()[-600:]}")
        return Noted(
            [end["s"] - begin["s"] for begin, end in zip(begun, ended, strict=True)],
            [(end["s"], end["bytes"]) for end in ended],
            [end["updates"] for end in ended],
            done[0]["accuracy"],
            sum(note["bytes"] for note in notes if note["what"] == "answer"),
        )

    def stop(self) -> None:
        """End all that was started."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _project(server: str, client: str, settings: dict[str, Any]) -> str:
    """Return the app's pyproject.toml."""
    components = {"serverapp": f"peer.{server}:app", "clientapp": f"peer.{client}:app"}
    return tomlkit.dumps(
        {
            "build-system": {"requires": ["hatchling"], "build-backend": "hatchling.build"},
            "project": {"name": "peer", "version": "1.0.0", "description": "the same rounds", "license": "Apache-2.0"},
            "tool": {
                "hatch": {"build": {"targets": {"wheel": {"packages": ["."]}}}},
                "flwr": {"app": {"publisher": "featherfed", "components": components, "config": settings}},
            },
        }
    )
