"""Server and phones as processes, a tollgate between them, and a schedule that kills them."""

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from featherfed.errors import LocalError
from featherfed.server.storage.ledger import Ledger
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.store import Store
from lab.chaos.authority import Authority
from lab.chaos.schedule import Schedule
from lab.chaos.tollgate import Break, How, Tollgate
from lab.chaos.wiretap import Witness
from lab.children import listens

LISTEN_S = 60.0
LEAVE_S = 20.0
STUCK_S = 240.0
"""No byte from any phone for so long: the run hangs."""


@dataclass(slots=True)
class Outcome:
    """What a run left behind, and what was seen on the way."""

    model: str
    """SHA-256 of the final model's file."""
    accepted: dict[int, frozenset[int]]
    closed: int
    up_bytes: int
    down_bytes: int
    ledger_up: int
    ledger_down: int
    unexplained_bytes: int
    """payload - resent - wasted - size of what counts, over all phones: 0 if each byte is booked once."""
    resent: int
    counted_bytes: int
    witness: Witness
    seconds: float = 0.0
    server_kills: int = 0
    phone_kills: int = 0
    breaks: dict[str, int] = field(default_factory=dict)
    """Connections broken, by how."""
    downloads_cut: int = 0
    uploads_cut: int = 0
    """Transfers that were under way when their connection ended."""
    restart_s: list[float] = field(default_factory=list)
    """From each `kill -9` of the server until the next one listens."""


class Arena:
    """One run under a schedule."""

    def __init__(self, schedule: Schedule, folder: Path, name: str) -> None:
        self._schedule = schedule
        self._folder = folder
        self._name = name
        self._run = folder / name
        self._logs = folder / f"{name}.logs"
        self._logs.mkdir(parents=True)
        self._witness = Witness()
        self._authority = authority = Authority(self._logs) if schedule.tls else None
        self._gate = Tollgate(
            self._witness,
            self._passed,
            phones_tls=authority.server_side() if authority else None,
            server_tls=authority.client_side() if authority else None,
            kill=self._kill_phone,
        )
        self._due = list(schedule.faults)
        self._phones: dict[int, subprocess.Popen[bytes]] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._server_port, *self._gateway_ports = _free_ports(1 + schedule.gateways)
        self._gate_ports: list[int] = []
        self._wake = asyncio.Event()
        self._moved_s = time.monotonic()
        self._restart_s: list[float] = []
        self._phone_kills = self._server_kills = 0

    async def play(self) -> Outcome:
        """Run to the end, faults and all; raises `LocalError` if the server fails or nothing moves any more."""
        began_s = time.monotonic()
        self._gate_ports = [await self._gate.open(port) for port in self._gateway_ports or [self._server_port]]
        try:
            await self._serve(["--runs", str(self._folder), "--name", self._name, *self._schedule.server_flags()])
            for shard in range(self._schedule.phones):
                self._start_phone(shard)
            while not await self._ended():
                await self._strike()
            await self._leave()
        finally:
            for process in [*self._phones.values(), self._server]:
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()
            await self._gate.close()
        outcome = self._outcome()
        outcome.seconds = time.monotonic() - began_s
        return outcome

    # Processes

    def _log(self, name: str) -> IO[bytes]:
        return open(self._logs / f"{name}.log", "ab")

    async def _serve(self, arguments: list[str]) -> None:
        role = ["serve"]
        if self._gateway_ports:
            role = ["tree", "--gateway-port", str(self._gateway_ports[0])]
        serve = [sys.executable, "-m", "featherfed.commands.server", *role, "--port", str(self._server_port)]
        if self._authority is not None:
            serve += ["--tls-cert", str(self._authority.cert), "--tls-key", str(self._authority.key)]
        with self._log("server") as log:
            self._server = subprocess.Popen([*serve, *arguments], stdout=log, stderr=log)
        deadline_s = time.monotonic() + LISTEN_S
        while not all(map(listens, [self._server_port, *self._gateway_ports])):
            if self._server.poll() is not None or time.monotonic() > deadline_s:
                raise LocalError(f"the server does not listen; see {self._logs}")
            await asyncio.sleep(0.02)

    def _start_phone(self, shard: int) -> None:
        schedule = self._schedule
        # Gateway i of G has the phones ⌊i·N/G⌋ … ⌊(i+1)·N/G⌋ − 1 (docs/PROTOCOL.md).
        port = self._gate_ports[((shard + 1) * len(self._gate_ports) - 1) // schedule.phones]
        scheme = "wss" if self._authority else "ws"
        command = [
            sys.executable, "-m", "featherfed.edge_client.cli", "run", "--server", f"{scheme}://127.0.0.1:{port}",
            "--name", f"phone-{shard}", "--shard", f"{shard}/{schedule.phones}",
            "--state-dir", str(self._logs / f"phone-{shard}"),
            "--train", "sgd" if shard < schedule.trainers else "none",
        ]  # fmt: skip
        if schedule.bandwidth:
            command += ["--bandwidth", schedule.bandwidth]
        if self._authority is not None:
            command += ["--ca", str(self._authority.ca)]
        with self._log(f"phone-{shard}") as log:
            self._phones[shard] = subprocess.Popen(command, stdout=log, stderr=log)

    async def _ended(self) -> bool:
        """Wait for a fault that is due or the server's end; return whether it has ended."""
        assert self._server is not None, "it was started"
        while True:
            status = self._server.poll()
            if status is not None:
                if status != 0:
                    raise LocalError(f"the server ended with status {status}; see {self._logs}")
                return True
            if self._due and self._due[0].at_bytes <= self._gate.carried_bytes:
                return False
            for shard, phone in self._phones.items():
                if phone.poll() not in (None, 0):
                    raise LocalError(f"phone {shard} ended with status {phone.returncode}; see {self._logs}")
            if time.monotonic() - self._moved_s > STUCK_S:
                raise LocalError(f"nothing has moved for {STUCK_S:g} s; see {self._logs}")
            self._wake.clear()
            try:
                async with asyncio.timeout(0.1):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _leave(self) -> None:
        """Give phones the time to take the server's farewell; one that was being restarted has nobody to come to."""
        deadline_s = time.monotonic() + LEAVE_S
        while any(phone.poll() is None for phone in self._phones.values()) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)

    # Faults

    def _passed(self, total: int) -> None:
        self._moved_s = time.monotonic()
        if self._due and self._due[0].at_bytes <= total:
            self._wake.set()

    async def _strike(self) -> None:
        fault = self._due.pop(0)
        if fault.what == "kill-server":
            assert self._server is not None, "it was started"
            os.kill(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server_kills += 1
            began_s = time.monotonic()
            await self._serve(["--resume", str(self._run)])
            self._restart_s.append(time.monotonic() - began_s)
            return
        how: How = "kill" if fault.what == "kill-phone" else fault.what
        self._gate.arm(f"phone-{fault.phone}", Break(how, fault.way, fault.at, fault.after_bytes))

    def _kill_phone(self, name: str) -> None:
        shard = int(name.removeprefix("phone-"))
        phone = self._phones[shard]
        if phone.poll() is None:
            phone.kill()
            phone.wait()
            self._phone_kills += 1
            self._start_phone(shard)

    # What is left

    def _outcome(self) -> Outcome:
        root = Store(RunFolder(self._run).database)
        try:
            closed = sum(row.state == "closed" for row in root.rounds())
        finally:
            root.close()
        accepted: dict[int, set[int]] = {}
        counted: dict[int, int] = {}
        explained: dict[int, int] = {}
        ledger_up = ledger_down = resent = 0
        # Phones are the gateways' where there are any.
        folders = [self._run / f"gateway-{index}" for index in range(self._schedule.gateways)] or [self._run]
        for folder in folders:
            store = Store(RunFolder(folder).database)
            try:
                updates, ledger = store.updates(), Ledger(store.traffic())
            finally:
                store.close()
            for update in updates:
                if update.counts_in is not None:
                    accepted.setdefault(update.counts_in, set()).add(update.shard)
                    counted[update.shard] = counted.get(update.shard, 0) + update.size
            for shard in range(self._schedule.phones):
                total = ledger.total("uplink", shard=shard)
                explained[shard] = explained.get(shard, 0) + total.payload - total.resent - total.wasted
            up, down = ledger.total("uplink"), ledger.total("downlink")
            ledger_up += up.socket + up.handshake
            ledger_down += down.socket + down.handshake
            resent += up.resent
        gate = self._gate
        return Outcome(
            model=hashlib.sha256(RunFolder(self._run).model.read_bytes()).hexdigest(),
            accepted={number: frozenset(shards) for number, shards in accepted.items()},
            closed=closed,
            up_bytes=gate.up_bytes,
            down_bytes=gate.down_bytes,
            ledger_up=ledger_up,
            ledger_down=ledger_down,
            unexplained_bytes=sum(abs(explained[shard] - counted.get(shard, 0)) for shard in explained),
            resent=resent,
            counted_bytes=sum(counted.values()),
            witness=self._witness,
            server_kills=self._server_kills,
            phone_kills=self._phone_kills,
            breaks={how: count for how, count in gate.breaks.items() if how != "kill"},
            downloads_cut=gate.cut["down"],
            uploads_cut=gate.cut["up"],
            restart_s=self._restart_s,
        )


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody has; all but the first one follow each other."""
    while True:
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError, OverflowError):
            ports = [_bound(probes, 0)]
            for number in range(count - 1):
                ports.append(_bound(probes, ports[-1] + 1 if number else 0))
            return ports


def _bound(probes: contextlib.ExitStack, port: int) -> int:
    probe = probes.enter_context(socket.socket())
    probe.bind(("127.0.0.1", port))
    bound: int = probe.getsockname()[1]
    return bound
