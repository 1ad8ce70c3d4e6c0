"""The same round in Flower (flwr): an app whose clients send noise, and the processes that run it."""

import re
import subprocess
import time
from pathlib import Path

from featherfed.errors import ConfigError, LocalError

PROGRAMS = ("flower-superlink", "flower-supernode", "flwr")
PORT, CLIENT_PORT = 8000, 9100
START_S = 60.0
_PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "peer"
version = "1.0.0"
description = "a round without training"
license = "Apache-2.0"
dependencies = []
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "featherfed"
[tool.flwr.app.components]
serverapp = "peer.server_app:app"
clientapp = "peer.client_app:app"
[tool.flwr.app.config]
num-server-rounds = {rounds}
parameters = {parameters}
clients = {phones}
"""
_CLIENT = """
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message: Message, context: Context) -> Message:
    weights = message.content["arrays"].to_numpy_ndarrays()[0]
    noise = np.random.default_rng().standard_normal(weights.shape, dtype=np.float32) * np.float32(1e-3)
    content = {"arrays": ArrayRecord([weights + noise]), "metrics": MetricRecord({"num-examples": 1})}
    return Message(content=RecordDict(content), reply_to=message)
"""
_SERVER = """
import time
import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
app = ServerApp()
class Timed(FedAvg):
    def configure_train(self, *given, **named):
        print("ROUND-BEGINS", time.time(), flush=True)
        return super().configure_train(*given, **named)
    def aggregate_train(self, *given, **named):
        mean = super().aggregate_train(*given, **named)
        print("ROUND-ENDS", time.time(), flush=True)
        return mean
@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    phones = int(config["clients"])
    strategy = Timed(
        fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=phones, min_available_nodes=phones
    )
    weights = ArrayRecord([np.zeros(int(config["parameters"]), np.float32)])
    strategy.start(grid=grid, initial_arrays=weights, num_rounds=int(config["num-server-rounds"]))
"""


class Flower:
    """SuperLink, SuperNodes and a run, each started with its output in `folder`."""

    def __init__(self, programs: Path, folder: Path) -> None:
        """`programs` is the folder of Flower's commands; raises `ConfigError` where one is not there."""
        for name in PROGRAMS:
            if not (programs / name).exists():
                raise ConfigError(f"{programs} has no {name}: pip install flwr, best in an environment of its own")
        self._programs, self._folder = programs, folder
        home = folder / "home"
        home.mkdir(parents=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "local"\n[superlink.local]\naddress = "127.0.0.1:{PORT}"\ninsecure = true\n'
        )
        self._environment = {
            "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home), "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1",
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

    def start_server(self) -> "subprocess.Popen[bytes]":
        """Start the SuperLink; returns when it listens."""
        process = self.start("superlink", "flower-superlink", "--insecure")
        self._wait_for("superlink", "Uvicorn running on")
        return process

    def start_phone(self, number: int) -> "subprocess.Popen[bytes]":
        """Start one SuperNode."""
        return self.start(
            f"supernode-{number}", "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{PORT}",
            "--port", str(CLIENT_PORT + number),
        )  # fmt: skip

    def start_run(self, parameters: int, phones: int, rounds: int) -> "subprocess.Popen[bytes]":
        """Start the rounds; the process ends with them."""
        app = self._folder / "app"
        (app / "peer").mkdir(parents=True)
        (app / "pyproject.toml").write_text(_PROJECT.format(rounds=rounds, parameters=parameters, phones=phones))
        (app / "peer" / "__init__.py").touch()
        (app / "peer" / "client_app.py").write_text(_CLIENT)
        (app / "peer" / "server_app.py").write_text(_SERVER)
        return self.start("run", "flwr", "run", str(app), "local", "--stream")

    def round_seconds(self) -> list[float]:
        """Return how long each round took."""
        log = (self._folder / "run.log").read_text(errors="replace")
        begun, ended = (
            [float(found) for found in re.findall(rf"ROUND-{word} ([\d.]+)", log)] for word in ("BEGINS", "ENDS")
        )
        if not ended or len(begun) != len(ended):
            raise LocalError(f"Flower finished {len(ended)} rounds: {log[-400:]}")
        return [end - begin for begin, end in zip(begun, ended, strict=True)]

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

    def _wait_for(self, name: str, sentence: str) -> None:
        log, until_s = self._folder / f"{name}.log", time.monotonic() + START_S
        while sentence not in log.read_text(errors="replace"):
            if time.monotonic() > until_s or self.running[-1].poll() is not None:
                raise LocalError(f"{name} did not start: {log.read_text(errors='replace')[-400:]}")
            time.sleep(0.1)
