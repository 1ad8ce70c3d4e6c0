"""The lives of a run's server in virtual time: killed, stopped, resumed from what its disk had, until the run is over.

What must hold is looked at here: while a life is under way, at its end, and of what the run has come to.
"""

import asyncio
import contextlib
import gc
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.nn.functional import mse_loss

import featherfed as ff
from featherfed.bandwidth_sim.virtual import VirtualLoop
from featherfed.codec.pipeline import Pipeline
from featherfed.server.config import RunConfig, config_from
from featherfed.server.model.aggregation import Aggregator
from featherfed.server.rounds import resume_point
from featherfed.server.service import Service
from featherfed.server.storage.run_folder import RunFolder, create
from featherfed.server.storage.store import Store
from featherfed.server.watchers.watcher import Watcher
from tests.own_problems import table

from .lively_gateways import LivelyGateway
from .many_phones import LivelyPhone
from .turns import TurnsLoop
from .whole_phones import WholePhone
from .world import HOST, PORT, World

HEARTBEAT_S = 4.0
DEADLINE_S = 60.0
ROUND_S = 20.0
"""In the calm: more than a round takes of which nobody is away, on the slowest link and disk."""

small = ff.Problem(lambda: nn.Linear(4, 1200), examples=lambda place: table(place.index), loss=mse_loss, name="small")


class Life(Watcher):
    """One life of the server, from its folder to its end or its kill."""

    def __init__(self, world: World, folder: RunFolder, config: RunConfig, *, resumed: bool) -> None:
        self.world, self.folder, self.config = world, folder, config
        self.store = Store(folder.database, durable=False)
        self.model = Aggregator(config, None, problem=small)
        world.layout, world.run_seed = self.model.fingerprint.layout, config.seed
        if resumed:
            start = resume_point.resume(config, self.store, folder, self.model)
        else:
            start = resume_point.begin(config, self.store, self.model)
        self.service = Service(config, folder, self.model, self.store, start, self)
        self.sockets: list[Any] = []
        add = self.service._connections.add

        def adding(phone: Any) -> None:
            self.sockets.append(phone.websocket)
            add(phone)

        self.service._connections.add = adding  # type: ignore[method-assign]
        self.serving = asyncio.create_task(self.service.run(host=HOST, port=PORT), name="server")

    def round_opened(self, round_number: int, attempt: int, cohort: Any) -> None:
        now_s = asyncio.get_running_loop().time()
        self.world.note(f"round {round_number}.{attempt} asks {sorted(cohort)}")
        if self.world.calm_s is not None and now_s > self.world.calm_s + 3 * HEARTBEAT_S:
            state = self.service.state
            if lost := set(self.service.fleet.connections) - state.present:
                self.world.faults.append(f"round {round_number} knows nothing of {lost}, who are connected")

    def round_closed(self, summary: Any) -> None:
        self.world.note(f"round {summary.round_number} closed with {summary.accepted}")

    def fault(self, name: str, code: int, sentence: str) -> None:
        self.world.note(f"fault of {name}: {code} {sentence}")
        if "the server failed" in sentence:
            self.world.faults.append(sentence)

    def kill(self, copy: Path) -> None:
        """End as by `kill -9`: what is on the disk now is all that is left."""
        shutil.copytree(self.folder.path, copy)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.network.unlisten(HOST, PORT)
        for phone in self.service._connections:
            phone.abort()
        self.serving.cancel()

    async def check_end(self) -> None:
        """Raise for what a life that has ended in order has left behind."""
        service, faults = self.service, self.world.faults
        left = {
            "connections": list(service._connections),
            "uploads under way": service._receiver._sending,
            "downloads under way": service._downlink._under_way,
            "updates that wait": getattr(service._intake, "_waiting", ()),
            "tasks": service._tasks._tasks,
            "timers": service.fleet._timers,
            "keys told": service._book._told,
            "deadline": [each for each in [service_deadline(service)] if each is not None],
        }
        faults += [f"{what} are left: {those}" for what, those in left.items() if those]
        up, down = service.ledger.total("uplink"), service.ledger.total("downlink")
        at = sum(socket.bytes_received for socket in self.sockets), sum(socket.bytes_sent for socket in self.sockets)
        before_up, before_down = self.world.carried
        now = up.socket + up.handshake, down.socket + down.handshake
        if now != (at[0] + before_up, at[1] + before_down):
            faults.append(f"the ledger has {now} bytes, where {at} were carried after {self.world.carried}")
        self.world.carried = now

    def check_done(self) -> None:
        """Raise for what a run that is over has come to, but should not."""
        faults, service, config = self.world.faults, self.service, self.config
        if service._uploads._uploads:
            faults.append(f"updates are kept: {service._uploads._uploads}")
        accepted: dict[int, int] = {}
        for update in self.store.updates():
            if update.state == "accepted":
                accepted[update.shard] = accepted.get(update.shard, 0) + update.size
            else:
                faults.append(f"an update is left: {update}")
        for shard in service.ledger.shards() - {-1}:
            total = service.ledger.total("uplink", shard=shard)
            counts = total.payload - total.resent - total.wasted
            if counts != accepted.get(shard, 0):
                faults.append(f"of shard {shard} {counts} bytes count in the ledger, {accepted.get(shard, 0)} are here")
        if config.gateways or Pipeline.parse(config.uplink).summed:
            # What comes is a sum, or is no update without its circle.
            return
        here = {(update.round_number, update.shard) for update in self.store.updates() if update.state == "accepted"}
        if self.world.heard - here:
            faults.append(f"phones heard that {self.world.heard - here} count, which do not")
        self._check_model()

    def _check_model(self) -> None:
        """Compare the model with the sum of each accepted update, once."""
        model, here = Aggregator(self.config, None, problem=small), self.store.updates()
        for row in self.store.rounds():
            model.sum.open(row.round)
            for update in here:
                if update.counts_in == row.round:
                    key, digest = (update.round_number, update.shard), update.digest
                    # Phones that are played in whole train alike each time.
                    payload = self.world.payloads.get((*key, digest)) or self.world.train(*key, anew=0)
                    model.sum.add(*key, payload, update.examples)
            model.close(row.round)
        ours, theirs = model._state.weights, self.model._state.weights
        if not np.array_equal(ours, theirs):
            self.world.faults.append(f"another model than the sum of {len(here)} updates")


def service_deadline(service: Service) -> Any:
    """Return the deadline that still runs."""
    runner = getattr(service._round._hands, "_hands", service._round._hands)
    return runner._assignments._deadline


async def play(folder: Path, seed: int, settings: dict[str, Any], *, phones: int, whole: int, chaos_s: float) -> World:
    """Play a run to its end; what must not be is in the world's `faults`."""
    draw = random.Random(f"{seed} server")
    world = World(seed, deadline_s=DEADLINE_S)
    loop = asyncio.get_running_loop()

    def failed(loop: Any, context: dict[str, Any]) -> None:
        world.faults.append(f"{context.get('message')}: {context.get('exception')!r} {context.get('future', '')}")

    loop.set_exception_handler(failed)
    given = {
        "problem": "tests.fuzz.served_life:small", "phones": phones, "deadline": DEADLINE_S, "heartbeat": HEARTBEAT_S,
        "max_examples": 1, "uplink": "float32", "downlink": "float32", "eval_every": 100, **settings,
    }  # fmt: skip
    given.setdefault("cohort", phones)
    config = config_from(given)
    world.renames = config.connect == "always"
    home = replace(create(folder, "run-0", config), durable=False)
    lively: list[LivelyPhone | WholePhone] = [
        WholePhone(world, number, kept=config.secure or draw.random() < 0.5)
        if number < whole
        else LivelyPhone(world, number)
        for number in range(phones)
    ]
    gates = [LivelyGateway(world, folder, config, index, config.gateways) for index in range(config.gateways)]
    for number, phone in enumerate(lively if gates else ()):
        phone.servers = (f"ws://gateway:{gates[number * len(gates) // phones].port}",)
    playing = [asyncio.create_task(gate.live(), name=f"gateway-{gate.index}") for gate in gates]
    playing += [asyncio.create_task(phone.live(), name=phone.name) for phone in lively]
    loop.call_later(chaos_s, world.calm_down)
    serving = asyncio.create_task(_lives(world, home, config, draw), name="lives")
    try:
        await asyncio.wait({serving})
        await serving
        world.over = True
        world.calm_down()
        _, late = await asyncio.wait(playing, timeout=1400.0)
        if late:
            world.faults.append(f"the run is over, and {[task.get_name() for task in late]} play on")
    finally:
        serving.cancel()
        world.calm_task.cancel()
        for task in playing:
            task.cancel()
        await asyncio.gather(serving, *playing, return_exceptions=True)
        for phone in lively:
            await phone.close()
    for task in playing:
        if not task.cancelled() and task.exception() is not None:
            world.faults.append(f"{task.get_name()}: {task.exception()!r}")
    world.ends = [each.end for each in (*gates, *lively)]
    await asyncio.sleep(30.0)
    mine = asyncio.current_task()
    world.faults += [f"a task is left: {task}" for task in asyncio.all_tasks() if task is not mine]
    gc.collect()
    return world


async def _lives(world: World, folder: RunFolder, config: RunConfig, draw: random.Random) -> None:
    loop, number = asyncio.get_running_loop(), 0
    resumed = False
    # One deadline of what was under way, and until phones have come back: half a minute.
    most_s = DEADLINE_S + 30.0 + 3 * HEARTBEAT_S + ROUND_S * config.rounds
    while True:
        life = Life(world, folder, config, resumed=resumed)
        what = "" if world.calm.is_set() else draw.choice(("", "", "kill", "kill", "stop"))
        until_s = draw.choice((0.5, 3.0, 10.0, 30.0, 60.0)) * draw.random()
        waiting: set[asyncio.Future[Any]] = {life.serving}
        try:
            if what:
                await asyncio.wait(waiting, timeout=until_s)
            if life.serving.done():
                pass
            elif what == "kill" and not world.calm.is_set():
                number += 1
                world.note("the server is killed")
                copy = folder.path.with_name(f"run-{number}")
                life.kill(copy)
                await asyncio.wait(waiting)
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await life.serving
                life.store.close()
                folder = replace(RunFolder(copy), durable=False)
                resumed = True
                await asyncio.sleep(draw.choice((0.0, 1.0, 8.0)))
                kept = Store(folder.database, durable=False)
                traffic = kept.traffic()
                kept.close()
                up, down = (
                    sum(each.socket + each.handshake for (_, _, way), each in traffic.items() if way == name)
                    for name in ("uplink", "downlink")
                )
                world.carried = up, down
                continue
            elif what == "stop" and not world.calm.is_set():
                world.note("the server is stopped")
                life.service.stop()
            while not life.serving.done():
                if world.calm.is_set():
                    left_s = (world.calm_s or 0.0) + most_s - loop.time()
                    await asyncio.wait(waiting, timeout=max(left_s, 0.0))
                    if not life.serving.done():
                        state = life.service.state
                        raise AssertionError(f"nothing ends: {state}")
                else:
                    calm = asyncio.create_task(world.calm.wait())
                    await asyncio.wait({*waiting, calm}, return_when=asyncio.FIRST_COMPLETED)
                    calm.cancel()
            paused = await life.serving
            world.note(f"the server ends: {paused}")
            await life.check_end()
            if paused is None:
                life.check_done()
                return
        finally:
            if not life.serving.done():
                life.serving.cancel()
                await asyncio.wait({life.serving})
            life.store.close()
        resumed = True
        await asyncio.sleep(draw.choice((0.1, 1.0, 5.0)))


def played(
    folder: Path, seed: int, settings: dict[str, Any], *, phones: int = 4, whole: int = 0, chaos_s: float = 100.0
) -> World:
    """Play a run in virtual time; the disk and the folds take a moment by chance."""
    draw = random.Random(f"{seed} disk")

    def job_s(job: Callable[..., Any], result: Any) -> float:
        return draw.choice((0.0, 0.0, 0.001, 0.02, 0.4))

    before = random.getstate()
    random.seed(seed)
    try:
        with asyncio.Runner(loop_factory=lambda: TurnsLoop(job_s=job_s, limit_s=20_000.0)) as runner:
            return runner.run(play(folder, seed, settings, phones=phones, whole=whole, chaos_s=chaos_s))
    finally:
        random.setstate(before)
