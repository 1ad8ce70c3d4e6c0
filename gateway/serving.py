"""One gateway: a phone upwards, a server downwards, on one event loop; `fl-server serve --gateway-of` is one.

What a gateway knows is in its folder, and a new life goes on from there. Without the folder, as on another machine,
nothing is lost for good: the root sends the model, the phones come back with their names and shards, and send again
what this round had of them (`PhoneState.take_back`).
"""

import asyncio
import contextlib
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from featherfed.by_round import ByRound
from featherfed.codec.threads import ALONE, Threads
from featherfed.commandline.signals import stopping
from featherfed.edge_client.dialing import DirectDialer, check_address, check_secrecy, trust
from featherfed.edge_client.learner import Learner
from featherfed.edge_client.phone import Phone, RunPausedError
from featherfed.edge_client.phone_context import PhoneSettings
from featherfed.errors import ConfigError, LocalError
from featherfed.gateway.aggregation import GatewayAggregator
from featherfed.gateway.round_exchange import News, RoundExchange
from featherfed.gateway.upstream import GatewayLearner, GatewayState
from featherfed.server.allocator import give_back_vectors
from featherfed.server.circle_plan import CohortShare
from featherfed.server.config import RunConfig
from featherfed.server.door.entrance import Entrance, EntranceOptions
from featherfed.server.rounds.resume_point import ResumePoint, resume, rules, state_of
from featherfed.server.rounds.round_machine import Phase, Rules
from featherfed.server.rounds.summed_machine import SummedState
from featherfed.server.run_tasks import in_thread
from featherfed.server.service import Service
from featherfed.server.serving import RunPlan, check
from featherfed.server.storage.holding import hold
from featherfed.server.storage.run_folder import RunFolder, create, existing
from featherfed.server.storage.store import Store, put_value
from featherfed.server.watchers.display import display
from featherfed.server.watchers.watcher import Watcher
from featherfed.wire.messages import Welcome

DEADLINE_SHARE = 0.9
"""Of the root's deadline: what a gateway has must be there before the root stops waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Whom a gateway serves, and how it gets there."""

    url: str
    token: str | None = None
    ca: str | None = None
    insecure: bool = False

    def check(self) -> None:
        """Raise `ConfigError` for what cannot work, or would show the token to the network."""
        url = check_address(self.url, "--gateway-of")
        check_secrecy(url, self.token, "--gateway-token", insecure=self.insecure)
        if self.ca and url.scheme != "wss":
            raise ConfigError(f"--gateway-ca is for wss:// addresses, and --gateway-of is {self.url}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlan:
    """All that makes gateway `index` of `of`, wherever it is started."""

    config: RunConfig
    index: int
    of: int
    root: Root
    entrance: EntranceOptions
    folder: Path
    durable: bool = True
    decode_threads: int = 1

    @property
    def place(self) -> tuple[int, int]:
        """Which one it is."""
        return self.index, self.of


class GatewayStoppedError(LocalError):
    """Somebody has stopped this gateway; its phones look for it again."""

    def __str__(self) -> str:
        return "the gateway was stopped"


def gateway_config(config: RunConfig, place: tuple[int, int], *, gateways: int = 0) -> RunConfig:
    """Return what a gateway of this run runs with; `gateways` of its own serve the phones, if there are any.

    Raises `ConfigError` where phones or gateways would be missing, and for `--dp`, which no tree has.
    """
    index, of = place
    if config.dp:
        raise ConfigError(
            f"--dp {config.dp} adds noise to one sum, and --gateway {index}/{of} hands up one of several; leave"
            " --dp out"
        )
    if of > config.phones:
        raise ConfigError(f"--gateway {index}/{of} leaves gateways without phones; --phones {config.phones} is less")
    if of * gateways > config.phones:
        raise ConfigError(
            f"--gateways {gateways} of --gateway {index}/{of} leaves some of {of * gateways} without phones;"
            f" --phones {config.phones} is less"
        )
    deadline, unmask_s = DEADLINE_SHARE * config.deadline, config.unmask_deadline
    if config.secure and not gateways:
        CohortShare.of(config, of).check()
        # A list of survivors that somebody does not answer takes its time too, before the sum is there.
        unmask_s = min(unmask_s, deadline / 2)
        deadline -= unmask_s
    return replace(config, gateways=gateways, deadline=deadline, unmask_deadline=unmask_s)


def gateway_rules(config: RunConfig, index: int, of: int) -> Rules:
    """Return the machine's rules for one gateway's share of a run: shards in a row, as equal as can be.

    Gateways of gateways are counted through on each level, as shards are: where gateway 1 of 2 has three, they are 3, 4
    and 5 of 6. Their rows of shards lie within its own, since ⌊3kN/6⌋ = ⌊kN/2⌋.
    """
    total = config.gateways * of or config.phones
    first, end = index * total // of, (index + 1) * total // of
    # A round closes when all who were asked are done, or at its deadline, with whatever there is.
    mine = replace(
        rules(config), phones=end - first, target=ByRound(end - first), min_updates=0, first=first, total=total
    )  # fmt: skip
    return replace(mine, cohort_size=ByRound(total)) if config.gateways else mine


def serve_gateway(run: RunPlan, root: Root, place: tuple[int, int]) -> None:
    """Serve one gateway's phones until the root's run is over; raises `LocalError` where there is no way on.

    `run` is the root's, with this gateway's own entrance and folder.
    """
    root.check()
    if run.resumed is None:
        check(run.config, code=False)
        config = gateway_config(run.config, place, gateways=run.config.gateways)
        path = run.runs / (run.name or f"gateway-{place[0]}-of-{place[1]}")
        create(run.runs, path.name, config)
    else:
        path, config = run.resumed.path, run.config
    plan = GatewayPlan(
        config=config, index=place[0], of=place[1], root=root, entrance=run.entrance, folder=path, durable=run.durable,
        decode_threads=run.decode_threads,
    )  # fmt: skip
    console = Console()
    shown = display(console, None, run.watching.log_format)
    command = ["fl-server", "serve", "--resume", str(path), "--gateway-of", root.url]
    command += ["--gateway", f"{place[0]}/{place[1]}", *(["--gateway-ca", root.ca] if root.ca else []), *run.flags()]
    again = f"go on with: {shlex.join(command)}"
    with shown:
        try:
            shown.note(play(plan, shown, stoppable=True))
        except RunPausedError as error:
            shown.note(f"the run pauses: {error.reason}; {again}")
        except GatewayStoppedError as error:
            shown.note(f"{error}; {again}")


def play(plan: GatewayPlan, watcher: Watcher, *, stoppable: bool = False) -> str:
    """Serve a gateway in this thread, from its folder if there is one; return what the root said at the end.

    Where it is `stoppable`, Ctrl-C and SIGTERM stop it. Raises `LocalError` where there is no way on.
    """
    if (plan.folder / "config.toml").exists():
        folder, config = RunFolder(plan.folder), existing(plan.folder)[1] if _begun(plan.folder) else plan.config
    else:
        # Nothing is known in a folder without it: a gateway may be killed while it makes its own.
        shutil.rmtree(plan.folder, ignore_errors=True)
        folder, config = create(plan.folder.parent, plan.folder.name, plan.config), plan.config
    give_back_vectors()
    guests = gateway_rules(config, *plan.place).phones
    with (
        hold(folder, say=watcher.note),
        Entrance(plan.entrance, plan.folder.absolute().parent, guests) as door,
    ):
        store = Store(folder.database, durable=plan.durable)
        try:
            return asyncio.run(_play(plan, config, folder, store, door, watcher, stoppable))
        finally:
            store.close()


def _begun(path: Path) -> bool:
    """Whether the folder has more than its configuration: a gateway may be killed right after it made it."""
    return isinstance(RunFolder(path).database, Path) and (path / "run.sqlite").exists()


async def _play(
    plan: GatewayPlan,
    config: RunConfig,
    folder: RunFolder,
    store: Store,
    door: Entrance,
    watcher: Watcher,
    stoppable: bool,
) -> str:
    threads = Threads(plan.decode_threads)
    gateway = Gateway(config, folder, store, watcher, root=plan.root, place=plan.place, threads=threads)
    with stopping(gateway.stop) if stoppable else contextlib.nullcontext():
        return await gateway.run(door)


class Gateway:
    """Both sides of one gateway, on the running event loop."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        store: Store,
        watcher: Watcher,
        *,
        root: Root,
        place: tuple[int, int],
        threads: Threads = ALONE,
    ) -> None:
        self._config, self._folder, self._store, self._watcher = config, folder, store, watcher
        self._place, self._threads = place, threads
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[News] = asyncio.Queue()
        self._exchange = RoundExchange(lambda news: self._call(self._news.put_nowait, news))
        self._phone_state = GatewayState(folder.path / "upstream")
        self._welcome: asyncio.Future[Welcome] = self._loop.create_future()
        self._stopped = asyncio.Event()
        self._phone = Phone(
            PhoneSettings(
                server=root.url, shard=place, token=root.token, tls=trust(root.url, root.ca),
                server_flag="--gateway-of", token_flag="--gateway-token",
            ),
            name=self._phone_state.name_phone(f"gateway-{place[0]}"), phone_state=self._phone_state,
            dialer=DirectDialer(),
            make_learner=self._make_learner, say=lambda line: None,
        )  # fmt: skip

    def stop(self) -> None:
        """End; `run` raises `GatewayStoppedError`."""
        self._stopped.set()

    async def run(self, door: Entrance) -> str:
        """Serve phones as soon as the root has let this gateway in; return what the root said at the end.

        Raises `RunPausedError` when the root pauses, another `LocalError` where there is no way on.
        """
        upward = asyncio.create_task(self._phone.run())
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            first: set[asyncio.Future[Any]] = {upward, stopped, self._welcome}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if self._welcome.done():
                await self._serve_phones(door, upward, stopped, self._welcome.result())
        finally:
            self._exchange.finish(GatewayStoppedError())
            if not (upward.done() or stopped.done()):
                # After the root's Finish it takes its leave by itself.
                await asyncio.wait({upward}, timeout=1.0)
            for task in (upward, stopped):
                task.cancel()
            outcome = (await asyncio.gather(upward, stopped, return_exceptions=True))[0]
        if isinstance(outcome, asyncio.CancelledError):
            raise GatewayStoppedError
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def _serve_phones(
        self, door: Entrance, upward: "asyncio.Task[str]", stopped: "asyncio.Task[bool]", welcome: Welcome
    ) -> None:
        aggregator = GatewayAggregator(self._config, self._exchange, welcome)
        await asyncio.to_thread(aggregator.sum.prepare, self._threads)
        start = self._resume_point(aggregator, welcome.run)
        service = Service(self._config, self._folder, aggregator, self._store, start, self._watcher)
        listening = asyncio.create_task(self._listen(service, aggregator))

        def ended(task: "asyncio.Task[Any]") -> None:
            # The first outcome of a service counts: it hears of the root here, before the exchange lets go of a round
            # that is being closed, and that raises.
            error = None if task.cancelled() else task.exception()
            if task is stopped:
                error = GatewayStoppedError()
            if isinstance(error, RunPausedError):
                service.end(error.reason)
            elif isinstance(error, Exception):
                service.end(error)
            elif service.state.phase is not Phase.CLOSING:
                service.end(None)
            self._exchange.finish(error if isinstance(error, Exception) else None)

        for task in (upward, stopped, listening):
            task.add_done_callback(ended)
        try:
            await service.run(door)
        except GatewayStoppedError:
            pass
        finally:
            for task in (upward, stopped, listening):
                task.remove_done_callback(ended)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, service: Service, aggregator: GatewayAggregator) -> None:
        """Tell the service which round the root is in, for as long as there is one."""
        while True:
            news = await self._news.get()
            if service.state.phase is Phase.GATHERING:
                # In later rounds `GatewayAggregator.close` takes the model, and the round stays closed until then.
                await in_thread(self._take, aggregator, news)
            service.ask(news.round_number, news.life)

    def _take(self, aggregator: GatewayAggregator, news: News) -> None:
        """Keep the model that this gateway begins with, so that its next life has one for its phones."""
        aggregator.adopt(news)
        version = aggregator.versions.version
        self._folder.write_version(version, aggregator.save)
        self._store.apply([put_value("version", str(version))])
        self._folder.promote(version)

    def _make_learner(self, welcome: Welcome) -> Learner:
        """Return the learner of the root's run; called in a thread."""
        try:
            if self._welcome.done() and self._welcome.result().run != welcome.run:
                raise LocalError(f"the root has begun another run, {welcome.run}; start this gateway anew")
            learner = GatewayLearner(welcome, self._config, self._exchange, self._phone_state)
        except LocalError as error:
            self._call(_settle, self._welcome, error)
            raise
        self._call(_settle, self._welcome, welcome)
        return learner

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        """Call on the loop from a thread, if the loop still runs."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _resume_point(self, aggregator: GatewayAggregator, run: str) -> ResumePoint:
        """Return where this gateway stands: new, or as its folder tells; raises `LocalError` if that is of another run.

        The run's id is the root's: a phone may move to another gateway with the model that it has.
        """
        mine = gateway_rules(self._config, *self._place)
        values = self._store.values()
        if "run" not in values:
            self._store.apply([put_value("run", run), put_value("parameters", str(aggregator.parameters))])
            return ResumePoint(run, state_of(self._config, mine), 0.0, 0.0)
        if values["run"] != run:
            raise LocalError(
                f"{self._folder.path} is of run {values['run']}, the root's is {run}; choose another --name"
            )
        start = resume(self._config, self._store, self._folder, aggregator)
        state = replace(start.state, rules=mine)
        if isinstance(state, SummedState) and aggregator.sum.circles is not None:
            state = replace(state, life=aggregator.sum.circles.life)
        return replace(start, state=state)


def _settle(welcome: "asyncio.Future[Welcome]", outcome: Welcome | LocalError) -> None:
    if welcome.done():
        return
    if isinstance(outcome, LocalError):
        welcome.set_exception(outcome)
    else:
        welcome.set_result(outcome)


def reached(url: str, host: str | None) -> str:
    """Return an address with another host.

    >>> reached("ws://0.0.0.0:8765", "10.0.0.1"), reached("wss://[::]:8765", "fd00::1"), reached("ws://h:1", None)
    ('ws://10.0.0.1:8765', 'wss://[fd00::1]:8765', 'ws://h:1')
    """
    if host is None:
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port}"
