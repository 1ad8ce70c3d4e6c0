"""From flags to a finished run: checks, the folder, the socket, signals, the summary."""

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from featherfed.commandline.signals import stopping
from featherfed.partitions import check_enough, parse_partition
from featherfed.problem_loading import load_problem
from featherfed.server.aggregation import Aggregator
from featherfed.server.allocator import give_back_vectors, spare_the_collector
from featherfed.server.config import RunConfig, config_from
from featherfed.server.database import remote_for
from featherfed.server.display import display
from featherfed.server.entrance import Entrance, EntranceOptions
from featherfed.server.holding import hold
from featherfed.server.measures import Target, measures_of
from featherfed.server.report import make_report, table, write_csv
from featherfed.server.run_folder import RunFolder, create, existing
from featherfed.server.run_rules import check_codecs, check_rules, load_plugins
from featherfed.server.service import Service
from featherfed.server.standing import begin, resume
from featherfed.server.store import Store
from featherfed.server.watcher import Watchers
from featherfed.server.watching import Watching

if TYPE_CHECKING:
    from featherfed.server.dashboard.serving import Where

Beside = Callable[[Service, RunFolder, Watchers], contextlib.AbstractAsyncContextManager[None]]
"""What runs beside a run, and may watch it and end it."""


def check(config: RunConfig, data_dir: str | None = None, *, code: bool = True) -> None:
    """Raise `ConfigError` for what nothing could be made of, before any data is loaded.

    Without `code` the problem, whose code a gateway has not, is left to the root.
    """
    load_plugins(config)
    parse_partition(config.partition)
    if code:
        problem = load_problem(config.problem)
        problem.settings_with(config.set)
        if config.target:
            Target.parse(config.target).measure(measures_of(problem) if problem.test else ())
        if (examples := problem.shared_examples(data_dir)) is not None:
            check_enough(config.partition, examples, config.phones)
    check_codecs(config)
    check_rules(config)


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
    check(config, data_dir)
    if store is not None:
        remote_for(store, name or config.title)
    with contextlib.ExitStack() as stack:
        if folder is not None:
            stack.enter_context(hold(folder, say=_warn))
        door = stack.enter_context(Entrance(entrance, resume.absolute().parent if resume else runs, config.guests))
        where = watching.prepare()
        if where is not None:
            stack.enter_context(where.sock)
        aggregator = Aggregator(config, data_dir)
        if folder is None:
            folder = create(runs, name, config, store=store)
            stack.enter_context(hold(folder, say=_warn))
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
    path = shlex.quote(str(folder.path))
    if paused is not None:
        _print(console, f"paused: {paused}; go on with: fl-server {command} --resume {path}")
    _print(console, f"the run is in {folder.path}: fl-server report {path}")
    return paused


def _print(console: Console, line: str) -> None:
    # Not rich's markup: a run may be called [bold].
    console.print(line, soft_wrap=True, markup=False, emoji=False)


def _warn(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


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
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(stopping(service.stop))
        if beside is not None:
            await stack.enter_async_context(beside(service, folder, watchers))
        if where is not None:
            from featherfed.server.dashboard.serving import make_scene, open_page

            scene = make_scene(service, config, folder, store, aggregator)
            watchers.add(scene)
            await stack.enter_async_context(open_page(where, scene, service.count, folder.path))
        return await service.run(entrance)
