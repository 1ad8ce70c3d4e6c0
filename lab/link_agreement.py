"""Real against virtual: the same server, phones and links, once on sockets in real time and once in virtual time."""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.relay import LinkedDialer
from featherfed.bandwidth_sim.virtual import VirtualDialer, run
from featherfed.edge_client.learner import F32, NoiseLearner, Trained
from featherfed.edge_client.phone import Phone
from featherfed.edge_client.phone_context import PhoneSettings
from featherfed.edge_client.phone_state import PendingUpdate, PhoneState
from featherfed.server.config import RunConfig
from featherfed.server.model.aggregation import Aggregator
from featherfed.server.rounds.resume_point import begin
from featherfed.server.service import Service
from featherfed.server.storage.run_folder import create
from featherfed.server.storage.store import Store
from featherfed.server.watchers.watcher import Watcher
from featherfed.wire.messages import Task

STEPS, STEP_S = 20, 0.05
"""Each phone trains for a second a round, on the loop's clock."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One update of one phone: when it was finished and when the server had accepted it, on the loop's clock."""

    phone: str
    round_number: int
    payload_bytes: int
    took_s: float


class _SteadyLearner(NoiseLearner):
    """Noise that counts as a fixed number of training steps."""

    def train(self, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]) -> Trained | None:
        trained = super().train(weights, task, residual, stopped)
        return None if trained is None else replace(trained, steps=STEPS)


class _TimedState(PhoneState):
    """Notes when an update is finished and when the phone hears that it counts."""

    def __init__(self, found: list[Upload]) -> None:
        super().__init__(None)
        self._found = found
        self._finished_s = 0.0

    def put_update(self, update: PendingUpdate) -> None:
        super().put_update(update)
        self._finished_s = asyncio.get_running_loop().time()

    def accepted(self, round_number: int) -> None:
        if (update := self.pending) is not None and update.round_number == round_number:
            took_s = asyncio.get_running_loop().time() - self._finished_s
            self._found.append(Upload(self.name, round_number, len(update.payload), took_s))
        super().accepted(round_number)


class _Address(Watcher):
    def __init__(self) -> None:
        self.known: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def listening(self, address: str, run: str) -> None:
        self.known.set_result(address)


async def uploads(
    profile: Profile, config: RunConfig, make_dialer: Callable[[Profile, int], LinkedDialer | VirtualDialer]
) -> list[Upload]:
    """Play a run with phones that send noise, on the running event loop; return their uploads in order of phone."""
    found: list[Upload] = []

    async def phone(number: int, server: str) -> None:
        phone_state = _TimedState(found)
        async with make_dialer(profile, number) as dialer:
            settings = PhoneSettings(server=server, shard=(number, config.phones), step_s=STEP_S)
            await Phone(
                settings, name=phone_state.name_phone(f"phone-{number:03}"), phone_state=phone_state, dialer=dialer,
                make_learner=_SteadyLearner, say=lambda line: None,
            ).run()  # fmt: skip

    with tempfile.TemporaryDirectory(prefix="featherfed-agreement-") as folder:
        aggregator = Aggregator(config, None)
        files = create(Path(folder), "run", config)
        store = Store(files.database, durable=False)
        try:
            watcher = _Address()
            start = begin(config, store, aggregator)
            service = Service(config, files, aggregator, store, start, watcher)
            serving = asyncio.create_task(service.run(host="127.0.0.1", port=0))
            address = await watcher.known
            await asyncio.gather(*(phone(number, address) for number in range(config.phones)))
            await serving
        finally:
            store.close()
    return sorted(found, key=lambda upload: (upload.phone, upload.round_number))


def agreement(profile: Profile, config: RunConfig) -> list[tuple[Upload, Upload]]:
    """Return each upload in real time beside the same one in virtual time."""
    real = asyncio.run(uploads(profile, config, lambda link, seed: LinkedDialer(link, seed)))
    virtual = run(uploads(profile, config, VirtualDialer))
    return list(zip(real, virtual, strict=True))
