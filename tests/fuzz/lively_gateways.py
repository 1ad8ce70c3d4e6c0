"""Gateways that are killed, lose their disks and their root, in virtual time."""

import asyncio
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from featherfed.bandwidth_sim.link import LinkSpec
from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.virtual import VirtualDialer
from featherfed.edge_client.phone import RunPausedError
from featherfed.errors import LocalError
from featherfed.gateway.serving import Gateway, Root, gateway_config
from featherfed.server.config import RunConfig
from featherfed.server.door.guarded_connection import GuardedConnection
from featherfed.server.storage.run_folder import RunFolder, create
from featherfed.server.storage.store import Store
from featherfed.server.watchers.watcher import Watcher

from .turns import PORT_OF, Meeting, TurnsLoop
from .world import HOST, PORT, World


class OpenDoor:
    """An entrance where there are no sockets: everybody may come in."""

    tls = None

    def serve_arguments(self, turned_away: Any) -> dict[str, Any]:
        return {"create_connection": GuardedConnection}

    async def emptied(self) -> None:
        """There is nobody to wait for."""

    async def close(self, sentence: str) -> None:
        """There is nobody to turn away."""

    async def watch(self) -> None:
        """There are no tokens."""


class MortalDialer(VirtualDialer):
    """The way to the root, until the gateway is killed."""

    dead = False

    async def connect(self, host: str, port: int) -> Any:
        if self.dead:
            raise ConnectionRefusedError
        return await super().connect(host, port)


class LivelyGateway(Watcher):
    """Gateway `index` of `of` over all of its lives."""

    def __init__(self, world: World, folder: Path, config: RunConfig, index: int, of: int) -> None:
        self.world, self.home, self.index, self.of = world, folder, index, of
        self.config = gateway_config(config, (index, of))
        self.random = random.Random(f"{world.seed} gateway {index}")
        self.port = 1000 + index
        self.end = ""
        self.lives = 0

    def note(self, sentence: str) -> None:
        self.world.note(f"gateway-{self.index} {sentence}")

    def round_opened(self, round_number: int, attempt: int, cohort: Any) -> None:
        self.note(f"round {round_number}.{attempt} asks {sorted(cohort)}")

    def fault(self, name: str, code: int, sentence: str) -> None:
        self.note(f"fault of {name}: {code} {sentence}")

    async def live(self) -> None:
        """Serve until the root's run is over."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnsLoop)
        PORT_OF.set(self.port)
        draw, folder = self.random, self._new()
        while not self.end:
            store = Store(folder.database, durable=False)
            spec = LinkSpec(delay_s=0.01)
            dialer = MortalDialer(Profile("link", spec, spec, "none"), self.index)
            gateway = Gateway(
                self.config, folder, store, self, root=Root(url=f"ws://{HOST}:{PORT}"), place=(self.index, self.of)
            )
            gateway._exchange._condition = Meeting(loop)  # type: ignore[assignment]
            gateway._phone._phone = replace(gateway._phone._phone, dialer=dialer)
            serving = asyncio.create_task(gateway.run(OpenDoor()))  # type: ignore[arg-type]
            killed = False
            try:
                killed = await self._disturb(serving, dialer)
                if not killed:
                    self.end = await serving
            except RunPausedError as error:
                self.note(str(error))
            except LocalError as error:
                self.note(f"ends: {error}")
                if self.world.over:
                    self.end = "untold"
                elif self.world.calm.is_set() and "no server at" not in str(error):
                    self.world.faults.append(f"gateway-{self.index}: {error}")
            finally:
                if killed:
                    self.note("is killed")
                    self.lives += 1
                    copy = self.home / f"gateway-{self.index}-{self.lives}"
                    shutil.copytree(folder.path, copy)
                    folder = replace(RunFolder(copy), durable=False)
                    loop.network.unlisten("0.0.0.0", self.port)
                    for connection in list(loop.network._connections.values()):
                        if connection.far.get_extra_info("sockname")[1] == self.port:
                            connection.end("reset")
                    dialer.dead = True
                    dialer.link.end("reset")
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                store.close()
            if killed and draw.random() < 0.3:
                self.note("loses its disk")
                folder = self._new()
            await asyncio.sleep(draw.choice((0.1, 2.0)))

    def _new(self) -> RunFolder:
        self.lives += 1
        return replace(create(self.home, f"gateway-{self.index}-{self.lives}", self.config), durable=False)

    async def _disturb(self, serving: "asyncio.Task[str]", dialer: VirtualDialer) -> bool:
        """Break its link until it is calm, the run is over, or it is killed; return whether it is."""
        draw = self.random
        while not serving.done():
            if self.world.calm.is_set():
                await asyncio.wait({serving})
                return False
            seconds = draw.choice((0.01, 0.1, 5.0, 20.0, 60.0)) * draw.random()
            await asyncio.wait({serving, self.world.calm_task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if self.world.calm.is_set() or serving.done():
                continue
            drawn = draw.random()
            if drawn < 0.15:
                return True
            if drawn < 0.5:
                how = draw.choice(("reset", "close", "stall"))
                self.note(f"its link ends: {how}")
                dialer.link.end(how)
        return False

    async def close(self) -> None:
        """Nothing is left of it."""
