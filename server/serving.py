"""From flags to a finished run: checks, the folder, the socket, signals, the summary."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from featherfed.codec.pipeline import Pipeline
from featherfed.errors import ConfigError
from featherfed.partitions import parse_partition
from featherfed.problem_loading import load_problem
from featherfed.server.aggregation import Aggregator
from featherfed.server.allocator import give_back_vectors, spare_the_collector
from featherfed.server.config import RunConfig, config_from
from featherfed.server.database import remote_for
from featherfed.server.display import display
from featherfed.server.entrance import Entrance, EntranceOptions
from featherfed.server.measures import Target, measures_of
from featherfed.server.report import make_report, table, write_csv
from featherfed.server.robust import parse_aggregate
from featherfed.server.run_folder import RunFolder, create, existing
from featherfed.server.service import Service
from featherfed.server.standing import begin, resume
from featherfed.server.store import Store
from featherfed.server.watcher import Watchers
from featherfed.server.watching import Watching

if TYPE_CHECKING:
    from featherfed.server.dashboard.serving import Where

Beside = Callable[[Service, RunFolder, Watchers], contextlib.AbstractAsyncContextManager[None]]
"""What runs beside a run, and may watch it and end it."""


def check(config: RunConfig, *, code: bool = True) -> None:
    """Raise `ConfigError` for names and specs that nothing could be made of, before any data is loaded.

    Without `code` the problem, whose code a gateway has not, is left to the root.
    """
    if code:
        problem = load_problem(config.problem)
        problem.settings_with(config.set)
        if config.target:
            Target.parse(config.target).measure(measures_of(problem) if problem.test else ())
    parse_partition(config.partition)
    uplink = Pipeline.parse(config.uplink)
    if parse_aggregate(config.aggregate) and uplink.leaves_zeros:
        raise ConfigError(
            f"--aggregate {config.aggregate} takes the middle of each coordinate, which most phones leave zero with"
            f" --uplink {config.uplink}; choose an uplink that sends all of them, or --aggregate mean with --clip-norm"
        )
    Pipeline.parse(config.downlink, direction="downlink")


def serve_run(
    settings: dict[str, Any],
    *,
    entrance: EntranceOptions,
    runs: Path,
    name: str | None,
    resume: Path | None,
    data_dir: str | None,
    store: str | None = None,
    durable: bool,
    watching: Watching,
    beside: Beside | None = None,
    command: str = "serve",
) -> str | None:
    """Serve a new or resumed run to its end; return None when it is done, or why it pauses.

    What `beside` gives is entered before the first phone may come, and left when the last one has gone. `command` of
    `fl-server` is what serves this run.
    """
    give_back_vectors()
    if resume is None:
        config = config_from(settings)
        folder = None
    else:
        folder, config = existing(resume)
    check(config)
    if store is not None:
        remote_for(store, name or config.title)
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(Entrance(entrance, resume.absolute().parent if resume else runs, config.guests))
        where = watching.prepare()
        if where is not None:
            stack.enter_context(where.sock)
        aggregator = Aggregator(config, data_dir)
        if folder is None:
            folder = create(runs, name, config, store=store)
        kept = Store(folder.database, durable=durable)
        stack.callback(kept.close)
        console = Console()
        shown = display(console, where, watching.log_format)
        watchers = Watchers([shown, *watching.records(stack, folder.path.name, folder.path, config)])
        with shown:
            paused = asyncio.run(
                _serve(config, folder, aggregator, kept, watchers, door, where, beside, resumed=resume is not None)
            )
        report = make_report(folder, config, kept)
        write_csv(folder, report)
    if watching.log_format == "json":
        return paused
    if not console.is_terminal:
        console.width = 120
    if report.content["rounds"]:
        console.print(table(report, console.width))
    if paused is not None:
        console.print(f"paused: {paused}; go on with: fl-server {command} --resume {folder.path}", soft_wrap=True)
    console.print(f"the run is in {folder.path}: fl-server report {folder.path}", soft_wrap=True)
    return paused


async def _serve(
    config: RunConfig,
    folder: RunFolder,
    aggregator: Aggregator,
    store: Store,
    watchers: Watchers,
    entrance: Entrance,
    where: "Where | None",
    beside: Beside | None,
    *,
    resumed: bool,
) -> str | None:
    standing = resume(config, store, folder, aggregator) if resumed else begin(config, store, aggregator)
    service = Service(config, folder, aggregator, store, standing, watchers)
    spare_the_collector()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not on every platform's loop: there, Ctrl-C ends the process the usual way.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, service.stop)
    async with contextlib.AsyncExitStack() as stack:
        if beside is not None:
            await stack.enter_async_context(beside(service, folder, watchers))
        if where is not None:
            from featherfed.server.dashboard.serving import make_scene, open_page

            scene = make_scene(service, config, folder, store, aggregator)
            watchers.add(scene)
            await stack.enter_async_context(open_page(where, scene, service.count, folder.path))
        return await service.run(entrance)
