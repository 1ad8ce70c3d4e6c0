"""A run in virtual time: the server and all of its phones in this process, on a clock that jumps.

The code is that of `fl-server serve` and `fl-edge run`, from the first byte of an upgrade to the last of a model. What
is left out has no effect on bytes: fsync, and the kernel's sockets. What is shared could not differ: weights of a
version, which all phones that hold it have bit for bit and which are decoded once for each parcel that makes them, the
data set, and the module that phones train one by one.

Training and evaluation take no virtual time by themselves; a phone's steps take those of its device.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.virtual import VirtualDialer, VirtualLoop, run
from featherfed.bandwidth_sim.virtual_clock import VirtualTimeError
from featherfed.codec.downlink import Held
from featherfed.edge_client.device import parse_device
from featherfed.edge_client.learner import SgdLearner, import_torch
from featherfed.edge_client.local_problem import LocalProblem
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.edge_client.phone_state import F32, PendingUpdate, PhoneState
from featherfed.edge_client.training_together import worth_a_batch
from featherfed.edge_client.training_work import Trains, in_a_thread
from featherfed.errors import FeatherfedError, LocalError
from featherfed.lost_phones import lost_phones
from featherfed.mixes import OTHER_STEP, dealt
from featherfed.problem import Problem
from featherfed.problem_loading import load_problem
from featherfed.problem_names import NamedProblem
from featherfed.server.config import RunConfig
from featherfed.server.rounds.pacing import first_rounds
from featherfed.server.rounds.resume_point import begin
from featherfed.server.service import Service
from featherfed.server.serving import loaded
from featherfed.server.storage.payloads import HeldPayloads
from featherfed.server.storage.report import make_report, write_csv
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.store import Store
from featherfed.server.watchers.watcher import Watcher, Watchers
from featherfed.side_by_side import Asked, SideBySide, Workers
from featherfed.wire.messages import ModelBegin, Welcome
from featherfed.wire.pieces import Pieces
from featherfed.workers import on_this_machine

HOST, PORT = "server", 80
ABANDONED_S = 60.0
"""How long a server without phones may go on, in virtual seconds: after the last round it writes its report."""

KEPT_PAYLOADS = 4
"""Downloads that phones share: of a version there are mostly one or two."""

_TURN = threading.Lock()
"""One simulation at a time in a process: they seed `random`, and torch's threads are the process's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The phones of a simulated run.

    `links` is the link of all phones (None: none that slows them), several with shares, or one for each phone;
    `devices` are names or times a step, as for `fl-edge run --device`. Without `trains` phones send noise of the size
    of updates. `dropout` is the probability that a phone leaves in a round in which it is asked, to be back after
    `away_s` seconds in the mean.
    """

    links: Profile | Mapping[Profile | None, float] | Sequence[Profile | None] | None = None
    devices: str | Mapping[str, float] = "cpu"
    trains: bool = True
    dropout: float = 0.0
    away_s: float = 60.0

    @property
    def kinds(self) -> set[str]:
        """Devices of torch that phones train on."""
        devices = [self.devices] if isinstance(self.devices, str) else list(self.devices)
        return {parse_device(device)[0] for device in devices}

    @property
    def evaluated_on(self) -> str:
        """The device of torch that the server's model is evaluated on: the phones' GPU, if all have one."""
        return next(iter(self.kinds)) if self.trains and len(self.kinds) == 1 else "cpu"

    def options(
        self, config: RunConfig, data_dir: str | None = None, shards: Iterable[int] | None = None
    ) -> list[PhoneOptions]:
        """Return what each phone of a run, or those of some shards, is told, as flags tell it `fl-edge run`."""
        options = []
        for shard in range(config.phones) if shards is None else shards:
            compute, step_s = parse_device(dealt(self.devices, shard, step=OTHER_STEP))
            options.append(
                PhoneOptions(
                    server=f"ws://{HOST}:{PORT}",
                    name=f"phone-{shard}",
                    problem=config.problem,
                    data_dir=data_dir,
                    shard=(shard, config.phones),
                    compute=compute,
                    step_s=step_s,
                    train=self.trains,
                    profile=self.links[shard] if isinstance(self.links, Sequence) else dealt(self.links, shard),
                    dropout=self.dropout,
                    away_s=self.away_s,
                )
            )
        return options


def simulate(
    config: RunConfig,
    make_folder: Callable[[], RunFolder],
    fleet: Fleet,
    *,
    named: NamedProblem | None = None,
    data_dir: str | None = None,
    watcher: Watcher | None = None,
    started: Callable[[asyncio.AbstractEventLoop], None] | None = None,
    kept: bool = True,
    workers: int | Workers | None = None,
) -> RunFolder:
    """Run a new run to its end, in the folder that is made when all is loaded; return it.

    `named` is what `config` names, where it is here already. A run goes on without phones that fail; that some did
    is noted to `watcher` at its end, or on standard error where there is none. One that is not `kept` has a folder
    that nobody will look into, which errors do not name.
    So many `workers` train side by side (None: one a core); whoever they are, the run is the same, bit for bit.
    `started` is given the loop: its `stop()` ends the simulation, from any thread, by a `RuntimeError` here. Another
    simulation in this process waits for this one. Raises `LocalError` where the run does not come to its end, and
    `ConfigError` for what could not be run.
    """
    named = named or NamedProblem(load_problem(config.problem), config.problem, config.problem)
    problem = named.problem
    with _TURN, _one_thread():
        import_torch(fleet.evaluated_on)
        aggregator = loaded(config, data_dir, problem=problem, device=fleet.evaluated_on)
        folder = replace(make_folder(), durable=False)
        store = Store(folder.database, durable=False)
        watcher = watcher or _OnStandardError(folder)
        foresight = Foresight()
        # A phone that is asked anew in mode async trains on another version than the one before it.
        if not isinstance(workers, Workers):
            workers = _workers(config, fleet, workers, named, data_dir)
        side_by_side = SideBySide(workers, foresight.others if config.mode == "sync" else None)
        aggregator.evaluates = side_by_side.evaluate
        run_here = f"the run in {folder.path}" if kept else "the run"
        try:

            async def main() -> tuple[str | None, dict[str, FeatherfedError]]:
                if started is not None:
                    started(asyncio.get_running_loop())
                loop = asyncio.get_running_loop()
                assert isinstance(loop, VirtualLoop), "of bandwidth_sim.virtual.run"
                loop.at_rest = side_by_side.at_rest
                side_by_side.begin()
                start = begin(config, store, aggregator)
                bell = RoundBell()
                service = Service(
                    config,
                    folder,
                    aggregator,
                    store,
                    start,
                    Watchers([watcher, bell, foresight]),
                    payloads=HeldPayloads(foresight.announced),
                )
                serving = asyncio.create_task(service.run(host=HOST, port=PORT), name="server")
                shared = SharedMemory(problem, side_by_side, foresight)
                # An emulator may know what the run's seed tells: a phone that no round asks never connects.
                firsts = first_rounds(start.state.rules) if config.connect == "when-chosen" else {}
                shards = sorted(firsts) or range(config.phones)
                phones = [
                    asyncio.create_task(shared.play(options, bell, firsts.get(shard, 1)), name=options.name)
                    for shard, options in zip(shards, fleet.options(config, data_dir, shards), strict=True)
                ]
                return await _together(serving, phones)

            try:
                paused, lost = run(main(), seed=config.seed)
            except VirtualTimeError as error:
                raise LocalError(f"{run_here} stands still: {error}{_last_fault(store)}") from error
            if paused is not None:
                raise LocalError(f"{run_here} {'pauses' if kept else 'ends'}: {paused}{_last_fault(store)}")
            write_csv(folder, make_report(folder, config, store))
            if side_by_side.fault:
                watcher.note(f"phones trained in one process: {side_by_side.fault}")
            if why := _reasons(lost, store):
                watcher.note(lost_phones(config.phones, why))
        finally:
            side_by_side.close()
            store.close()
    return folder


def _workers(config: RunConfig, fleet: Fleet, wanted: int | None, named: NamedProblem, data_dir: str | None) -> Workers:
    """Return a run's workers on this machine: this process alone where nobody trains, or on a GPU."""
    if not fleet.trains or fleet.kinds != {"cpu"}:
        return Workers(together=worth_a_batch if fleet.trains and "cpu" not in fleet.kinds else None)
    return on_this_machine(config, wanted, named, data_dir)


def _reasons(lost: Mapping[str, FeatherfedError], store: Store) -> dict[str, str]:
    """Return why phones left a run that went on, by their names: what they raised, or what the server saw of them."""
    why = {name: str(error) for name, error in lost.items()}
    for fault in store.faults():
        why.setdefault(fault.phone, fault.sentence)
    return why


def _last_fault(store: Store) -> str:
    """Return what the last phone that failed has said, to follow a sentence: it is mostly why the run did not go on."""
    faults = store.faults()
    return f"; {len(faults)} faults of phones, the last of {faults[-1].phone}: {faults[-1].sentence}" if faults else ""


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread, as all of our programs do: with more the last bits of a sum may be others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _OnStandardError(Watcher):
    """Says what an operator should know of a run that nobody else watches."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def note(self, sentence: str) -> None:
        """Say it, with the run's folder: there may be many in a grid."""
        print(f"{self._folder.path}: {sentence}", file=sys.stderr, flush=True)


async def _together(
    serving: "asyncio.Task[str | None]", phones: list["asyncio.Task[str]"]
) -> tuple[str | None, dict[str, FeatherfedError]]:
    """Return the server's outcome and why phones failed before it, by their names.

    Raises `LocalError` when all phones have given up before the server.
    """
    gathered = asyncio.gather(*phones, return_exceptions=True)
    waiting: set[asyncio.Future[Any]] = {serving, gathered}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await asyncio.wait({serving}, timeout=ABANDONED_S)
    if not serving.done():
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        reasons = [str(each) for each in await gathered if isinstance(each, BaseException)]
        raise LocalError(f"{reasons[0] if reasons else 'they were dismissed'}; all phones ended before the server did")
    for task in phones:
        task.cancel()
    lost: dict[str, FeatherfedError] = {}
    for task, outcome in zip(phones, await gathered, strict=True):
        if isinstance(outcome, FeatherfedError):
            lost[task.get_name()] = outcome
        elif isinstance(outcome, Exception):
            raise outcome
    return await serving, lost


class RoundBell(Watcher):
    """Tells emulated phones that a round opens: they need not guess when."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: dict[int, asyncio.Event] = {}

    def round_opened(self, round_number: int, attempt: int, cohort: Collection[int]) -> None:
        """Wake who waits for this round."""
        self._number = round_number
        if waiting := self._waiting.pop(round_number, None):
            waiting.set()

    async def rings(self, round_number: int, seconds: float) -> None:
        """Return when a round has opened, however long that takes."""
        if round_number > self._number:
            await self._waiting.setdefault(round_number, asyncio.Event()).wait()


class Foresight(Watcher):
    """Knows what the phones of a cohort will be asked, once the first of them is."""

    def __init__(self) -> None:
        self._cohort: Sequence[int] = ()
        self._states: dict[int, _SharedState] = {}
        self._learners: dict[int, SgdLearner] = {}

    def round_opened(self, round_number: int, attempt: int, cohort: Collection[int]) -> None:
        """Note who is asked."""
        self._cohort = sorted(cohort)

    def plays(self, shard: int, state: "_SharedState") -> None:
        """Note the memory of a phone."""
        self._states[shard] = state

    def learns(self, learner: SgdLearner) -> None:
        """Note the learner of a phone."""
        self._learners[learner.welcome.shard] = learner

    def announced(self, key: tuple[int, int], digest: bytes) -> bytes | None:
        """Return the update of a (round, shard) that its phone has announced with this digest."""
        state = self._states.get(key[1])
        return None if state is None else state.announced(key[0], digest)

    def others(self, asked: Asked) -> Iterator[Asked]:
        """Give what the others will be asked: the same task on the same weights, with residuals of their own."""
        for shard in self._cohort:
            learner, state = self._learners.get(shard), self._states.get(shard)
            if learner is None or state is None or learner is asked.learner:
                continue
            # What it sent last is accepted, or it would not be asked again.
            pending = state.pending
            residual = state.residual if pending is None or pending.residual is None else pending.residual
            yield Asked(learner, asked.weights, asked.task, residual)


class SharedMemory:
    """What the phones of one process need once; `trains` and `foresight` are those of a simulation."""

    def __init__(
        self, problem: Problem | None = None, trains: Trains = in_a_thread, foresight: Foresight | None = None
    ) -> None:
        self._states = _SharedStates()
        self._problem = problem
        self._trains, self._foresight = trains, foresight or Foresight()
        self._local: LocalProblem | None = None

    async def play(self, options: PhoneOptions, bell: "RoundBell", first_round: int = 1) -> str:
        """Play one phone to its end; it comes for its first round, and when it rests, for later ones."""
        if first_round > 1:
            await bell.rings(first_round, 0.0)
        linked: Callable[[Profile, int], VirtualDialer] = VirtualDialer
        state = self._states.one()
        if options.shard is not None:
            self._foresight.plays(options.shard[0], state)
        return await play_phone(
            options,
            _say_nothing,
            phone_state=state,
            linked=linked,
            make_local=self._make_local,
            rest=bell.rings,
            trains=self._trains,
        )

    def _make_local(self, name: str, device: str) -> LocalProblem:
        self._local = self._local or _SeenProblem(name, device, self._problem, self._foresight)
        return self._local


class _SeenProblem(LocalProblem):
    """A problem whose learners are known ahead."""

    def __init__(self, name: str, device: str, problem: Problem | None, foresight: Foresight) -> None:
        super().__init__(name, device, problem)
        self._foresight = foresight

    def learner(self, welcome: Welcome, data_dir: str | None, *, tried: bool = False) -> SgdLearner:
        made = super().learner(welcome, data_dir, tried=tried)
        self._foresight.learns(made)
        return made


class _SharedStates:
    """Phone states without a folder, whose models lie in memory once, and are decoded once."""

    def __init__(self) -> None:
        self._newest = -1
        self._weights: F32 | None = None
        self._initial: F32 | None = None
        self._made = -1
        self._parcels: dict[tuple[int, bytes], Held] = {}  # of version `_made`, by base and digest
        self._payloads: dict[bytes, bytes] = {}  # by digest, of the newest downloads

    def one(self) -> "_SharedState":
        return _SharedState(self)

    def share(self, version: int, weights: F32) -> F32:
        """Return the one array of a version: every phone that holds it has the same bits."""
        if version > self._newest:
            self._newest, self._weights = version, weights
        return self._weights if version == self._newest and self._weights is not None else weights

    def share_initial(self, initial: F32 | None) -> F32 | None:
        """Return the one array of the initial weights, which a phone that joins late is sent, or draws, again."""
        if self._initial is None:
            self._initial = initial
        return None if initial is None else self._initial

    def drawn(self, draw: Callable[[], F32]) -> F32:
        """Return the initial weights, which all phones draw alike."""
        if self._initial is None:
            self._initial = draw()
        return self._initial

    def downloaded(self, received: Pieces, digest: bytes, check: Callable[[bytes], bytes | None]) -> bytes | None:
        """Return the one copy of a download: to compare bytes takes a tenth of the time that their digest takes."""
        known = self._payloads.get(digest)
        if known is not None and received.same_as(known):
            return known
        payload = check(digest)
        if payload is not None:
            if len(self._payloads) >= KEPT_PAYLOADS:
                del self._payloads[next(iter(self._payloads))]
            self._payloads[digest] = payload
        return payload

    def decoded(self, begin: ModelBegin, decode: Callable[[], Held]) -> Held:
        """Return what a parcel makes of its base: the digest, which was checked, stands for its bytes."""
        if begin.version > self._made:
            self._made = begin.version
            self._parcels.clear()
        if begin.version < self._made:
            return decode()
        key = begin.base, begin.digest
        if key not in self._parcels:
            self._parcels[key] = decode()
        return self._parcels[key]


class _SharedState(PhoneState):
    def __init__(self, states: _SharedStates) -> None:
        super().__init__(None)
        self._states = states
        self._announced: tuple[PendingUpdate, bytes] | None = None

    def announce(self, update: PendingUpdate) -> bytes:
        digest = super().announce(update)
        self._announced = update, digest
        return digest

    def announced(self, round_number: int, digest: bytes) -> bytes | None:
        """Return the update of a round, where this phone is sending it and has said that this is its digest."""
        if self._announced is None:
            return None
        update, said = self._announced
        under_way = update is self.pending and update.round_number == round_number
        return update.payload if under_way and said == digest else None

    def hold(self, version: int, weights: F32, initial: F32 | None = None, difference: bytes = b"") -> None:
        initial = self._states.share_initial(initial)
        super().hold(version, self._states.share(version, weights), initial, difference)

    def drawn(self, draw: Callable[[], F32]) -> F32:
        return self._states.drawn(draw)

    def downloaded(self, digest: bytes) -> bytes | None:
        return self._states.downloaded(self.download, digest, super().downloaded)

    def decoded(self, begin: ModelBegin, decode: Callable[[], Held]) -> Held:
        return self._states.decoded(begin, decode)


def _say_nothing(line: str) -> None:
    pass
