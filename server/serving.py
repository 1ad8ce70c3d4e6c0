"""From flags to a finished run: checks, the folder, the socket, signals, the summary."""

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from featherfed.codec.threads import Threads
from featherfed.commandline.signals import stopping
from featherfed.partitions import check_enough, parse_partition
from featherfed.problem import Problem
from featherfed.problem_loading import load_problem
from featherfed.server.allocator import give_back_vectors, spare_the_collector
from featherfed.server.circle_plan import CohortShare, risks_of
from featherfed.server.config import RunConfig, config_from
from featherfed.server.door.entrance import Entrance, EntranceOptions
from featherfed.server.kept_promise import keep_promise
from featherfed.server.measures import Target, measures_of
from featherfed.server.model.aggregation import Aggregator
from featherfed.server.model.run_rules import check_codecs, check_rules, load_plugins
from featherfed.server.privacy_note import privacy_note
from featherfed.server.rounds.resume_point import begin, resume
from featherfed.server.service import Service
from featherfed.server.storage.database import remote_for
from featherfed.server.storage.holding import hold
from featherfed.server.storage.report import Report, make_report, table, write_csv
from featherfed.server.storage.run_folder import RunFolder, create, existing
from featherfed.server.storage.store import Store
from featherfed.server.watchers.display import display
from featherfed.server.watchers.watcher import Watchers
from featherfed.server.watching import Watching

if TYPE_CHECKING:
    from featherfed.server.dashboard.serving import Where

Beside = Callable[[Service, RunFolder, Watchers], contextlib.AbstractAsyncContextManager[None]]
"""What runs beside a run, and may watch it and end it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run to serve: what it is, who may come in, where it is kept, and how it is watched.

    It goes on in the folder `resumed`, or gets a new one called `name` in `runs`. `problem` is what `config` names,
    where it is here already. So many `decode_threads` decode updates of large models. What `beside` gives is entered
    before the first phone may come, and left when the last one has gone. `command` of `fl-server` is what serves this
    run, with the flags `again` where they are not `entrance`'s.
    """

    config: RunConfig
    entrance: EntranceOptions
    runs: Path = Path("runs")
    name: str | None = None
    resumed: RunFolder | None = None
    problem: Problem | None = None
    data_dir: str | None = None
    store: str | None = None
    durable: bool = True
    decode_threads: int = 1
    watching: Watching = field(default_factory=Watching)
    beside: Beside | None = None
    command: str = "serve"
    again: tuple[str, ...] | None = None

    @property
    def home(self) -> Path:
        """The folder of the runs, where their tokens lie."""
        return self.resumed.path.absolute().parent if self.resumed else self.runs

    def flags(self) -> list[str]:
        """Return the flags that say again what the run's folder does not, without defaults and secrets."""
        flags = [*(self.entrance.flags() if self.again is None else self.again)]
        flags += [] if self.data_dir is None else ["--data-dir", self.data_dir]
        flags += [] if self.durable else ["--no-durable"]
        flags += [] if self.decode_threads == 1 else ["--decode-threads", str(self.decode_threads)]
        return flags + self.watching.flags()


@dataclass(frozen=True, slots=True)
class Served:
    """What has become of a run: `paused` says why it is not done."""

    folder: RunFolder
    report: Report
    paused: str | None


def plan_of(settings: Mapping[str, Any], *, resume: Path | None, **rest: Any) -> RunPlan:
    """Return the plan of a new run with these settings, or of the one in the folder `resume`; `rest` are its fields.

    Raises `ConfigError`.
    """
    folder, config = (None, config_from(settings)) if resume is None else existing(resume)
    return RunPlan(config=config, resumed=folder, **rest)


def check(config: RunConfig, data_dir: str | None = None, *, problem: Problem | None = None, code: bool = True) -> None:
    """Raise `ConfigError` for what nothing could be made of, before any data is loaded.

    `problem` is what the configuration names, where it is here already. Without `code` the problem, whose code a
    gateway has not, is left to the root.
    """
    load_plugins(config)
    parse_partition(config.partition)
    if code:
        problem = problem or load_problem(config.problem)
        problem.settings_with(config.set)
        if config.target:
            Target.parse(config.target).measure(measures_of(problem) if problem.test else ())
        if (examples := problem.shared_examples(data_dir)) is not None:
            check_enough(config.partition, examples, config.phones)
    check_codecs(config)
    check_rules(config)


def loaded(
    config: RunConfig, data_dir: str | None = None, *, problem: Problem | None = None, device: str = "cpu"
) -> Aggregator:
    """Return what learns at the server, and is evaluated on a `device` of torch; tried out before any phone comes.

    A metric of the `whole` test set has no few examples to be tried on, so the model as it begins is evaluated on all
    of them. Raises `ConfigError`, `ProblemError` or `DataError` for a problem that no round could be served of.
    """
    problem = problem or load_problem(config.problem)
    aggregator = Aggregator(config, data_dir, problem=problem, device=device)
    if any(measure.whole for measure in problem.measures.values()):
        aggregator.evaluate()
    return aggregator


def serve_and_print(plan: RunPlan) -> str | None:
    """Serve a run in a process of its own; return None when it is done, or why it pauses.

    Its report and where it lies are printed at the end, unless its output is JSON.
    """
    give_back_vectors()
    console = Console()
    served = serve_run(plan, console)
    if plan.watching.log_format == "json":
        return served.paused
    if not console.is_terminal:
        console.width = 160
    if served.report.content["rounds"]:
        console.print(table(served.report, console.width))
    path = shlex.quote(str(served.folder.path))
    if served.paused is not None:
        again = shlex.join(["fl-server", plan.command, "--resume", str(served.folder.path), *plan.flags()])
        _print(console, f"paused: {served.paused}; go on with: {again}")
    _print(console, f"the run is in {served.folder.path}: fl-server report {path}")
    return served.paused


def serve_run(plan: RunPlan, console: Console) -> Served:
    """Serve a run, shown on a console, until it is done or pauses."""
    config, folder, watching = plan.config, plan.resumed, plan.watching
    check(config, plan.data_dir, problem=plan.problem)
    if plan.store is not None:
        remote_for(plan.store, plan.name or config.title)
    with contextlib.ExitStack() as stack:
        if folder is not None:
            stack.enter_context(hold(folder, say=_warn))
        door = stack.enter_context(Entrance(plan.entrance, plan.home, config.guests))
        where = watching.prepare()
        if where is not None:
            stack.enter_context(where.sock)
        problem = plan.problem or load_problem(config.problem)
        aggregator = loaded(config, plan.data_dir, problem=problem)
        aggregator.sum.prepare(Threads(plan.decode_threads))
        invitation = None
        if plan.entrance.phone_page:
            from featherfed.server.phone_page.invitation import invite
            from featherfed.server.phone_page.opening import open_site

            cannot = open_site(config, problem, plan.entrance, door)
            invitation = replace(invite(plan.entrance, door), cannot=cannot)
        if folder is None:
            folder = create(plan.runs, plan.name, config, store=plan.store)
            stack.enter_context(hold(folder, say=_warn))
        kept = Store(folder.database, durable=plan.durable)
        stack.callback(kept.close)
        shown = display(console, where, watching.log_format, invitation)
        watchers = Watchers([shown, *watching.records(stack, folder.path.name, folder.path, config)])
        with shown:
            if config.secure:
                watchers.note(str(risks_of(config)))
                if config.gateways:
                    watchers.note(str(CohortShare.of(config, config.gateways)))
            if (sentence := privacy_note(config, aggregator)) is not None:
                watchers.note(sentence)
            paused = asyncio.run(_serve(plan, folder, aggregator, kept, watchers, door, where))
        report = make_report(folder, config, kept)
        write_csv(folder, report)
    return Served(folder, report, paused)


def _print(console: Console, line: str) -> None:
    # Not rich's markup: a run may be called [bold].
    console.print(line, soft_wrap=True, markup=False, emoji=False)


def _warn(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def _serve(
    plan: RunPlan,
    folder: RunFolder,
    aggregator: Aggregator,
    store: Store,
    watchers: Watchers,
    entrance: Entrance,
    where: "Where | None",
) -> str | None:
    config = plan.config
    start = resume(config, store, folder, aggregator) if plan.resumed else begin(config, store, aggregator)
    if (sentence := keep_promise(config, store, aggregator)) is not None:
        watchers.note(sentence)
    service = Service(config, folder, aggregator, store, start, watchers)
    spare_the_collector()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(stopping(service.stop))
        if plan.beside is not None:
            await stack.enter_async_context(plan.beside(service, folder, watchers))
        if where is not None:
            from featherfed.server.dashboard.serving import make_scene, open_page

            scene = make_scene(service, config, folder, store, aggregator)
            watchers.add(scene)
            await stack.enter_async_context(open_page(where, scene, service.count, folder.path))
        return await service.run(entrance)
