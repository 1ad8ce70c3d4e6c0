"""An experiment: a problem, its phones and how they learn, run in virtual time or on sockets.

    run = ff.Experiment("digits", phones=20, cohort=10, rounds=10, local=ff.SGD(lr=0.05, epochs=2))
    report = run.simulate(links={"3g": 0.5, "4g": 0.5})
    run.serve("127.0.0.1:8765", folder="runs/x")

`fl-bench run --virtual` and `fl-server serve` do the same: the same settings and seed give the same model, bit for bit.
"""

import asyncio
import contextlib
import gc
import tempfile
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.profile import Profile, find_profile, profile_from_flags, read_profiles
from featherfed.bandwidth_sim.units import parse_duration
from featherfed.by_round import ByRoundOr
from featherfed.edge_client.device import parse_device
from featherfed.errors import ConfigError, LocalError
from featherfed.keywords import only_known, refuse_unknown
from featherfed.local_training import TrainingByRound
from featherfed.mixes import check_mix
from featherfed.own_loop import Stop, apart
from featherfed.problem import Problem
from featherfed.problem_names import NamedProblem, named
from featherfed.progress_bar import ProgressBar
from featherfed.python_words import in_python_words
from featherfed.report import Report
from featherfed.rules.aggregate import Aggregate
from featherfed.rules.naming import spelled
from featherfed.rules.parameters import Rule
from featherfed.rules.select import Select
from featherfed.rules.server_optimizer import ServerOptimizer
from featherfed.server.config import KNOWN, RunConfig, config_from
from featherfed.server.door.entrance import EntranceOptions
from featherfed.server.service import Service
from featherfed.server.serving import RunPlan, check, serve_run
from featherfed.server.storage.run_folder import RunFolder, create, existing
from featherfed.server.watchers.watcher import Watchers
from featherfed.server.watching import Watching
from featherfed.simulation import Fleet, simulate
from featherfed.training_settings import Training

Link = str | Profile | None

_ELSEWHERE = {
    **dict.fromkeys(Training.__dataclass_fields__, "local=ff.SGD(…)"),
    "set": "local=ff.SGD(…, settings={…})",
    "settings": "local=ff.SGD(…, settings={…})",
    "seed": "simulate(seed=…) or serve(seed=…)",
    "server_optimizer": "server=ff.FedAdam(…)",
    "server_lr": "server=ff.FedAdam(lr=…)",
    "gateways": "fl-server tree",
    "links": "simulate(links=…)",
    "devices": "simulate(devices=…)",
    "folder": "simulate(folder=…) or serve(folder=…)",
}
"""Who takes what an experiment does not."""
_OWN = (
    "phones", "cohort", "rounds", "local", "uplink", "downlink", "server", "partition", "aggregate", "select",
    "data_dir",
)  # fmt: skip
_KEYWORDS = (*_OWN, *sorted({*KNOWN} - {"problem", *_OWN, *_ELSEWHERE}))


class Experiment:
    """A run that is described and not begun; it can be simulated and served, again and again.

    `problem` is an `ff.Problem`, or the name of one: `"mnist/2nn"`, `"mytask:problem"`, `"./mytask.py:problem"`.
    `phones` are in the run, `cohort` of them are wanted in a round (None: 10, or all if there are less), for `rounds`
    rounds. `local` is how phones train, `ff.SGD(…)`; `server` how the server steps, like `ff.FedAdam(lr=0.1)` or
    `"fedadam"`. `uplink` and `downlink` are codec specs or presets (docs/CODECS.md; None: up `vertex-small`, or
    `secure-4bit` with `secure=True`, down `lattice(1)`, or `eden-1bit` where each round asks all phones), `partition`
    how a data set that phones share is cut (`iid`, `shards:N`, `dirichlet:A`, `quantity:A`), `aggregate` what becomes
    of a round's updates (`"median"`, `ff.TrimmedMean(0.1)`), `select` who is asked in it (`"uniform"`,
    `ff.FastLinks()`); rules may be your own (docs/RULES.md). `data_dir` is the folder of downloaded data sets.

    `cohort` and `uplink`, with `quorum`, `over_select` and what `ff.SGD` takes, may change by round: `[12, 6]` are the
    values of rounds 1 and 2, `{1: 12, 5: 6}` says from which round on each holds, and the last one stays.

    `more` are the other settings of `fl-server serve`, by the names of `config.toml`: `mode`, `buffer`, `deadline`
    (seconds), `quorum`, `over_select`, `clip_norm`, `secure` (sums under masks), `eval_every`, ….

    Raises `ConfigError` (`SpecError`, `ProblemError`) for what could not be run, in one sentence.
    """

    @in_python_words()
    def __init__(
        self,
        problem: Problem | str,
        *,
        phones: int = 10,
        cohort: ByRoundOr[int] | None = None,
        rounds: int = 20,
        local: Training | TrainingByRound | None = None,
        uplink: ByRoundOr[str] | None = None,
        downlink: str | None = None,
        server: ServerOptimizer | str = "fedavg",
        partition: str = "iid",
        aggregate: Aggregate | str = "mean",
        select: Select | str = "uniform",
        data_dir: str | Path | None = None,
        **more: Any,
    ) -> None:
        refuse_unknown("Experiment()", more, _KEYWORDS, _ELSEWHERE)
        self._given = {
            "phones": phones, "cohort": cohort, "rounds": rounds, "local": local, "uplink": uplink,
            "downlink": downlink, "server": server, "partition": partition, "aggregate": aggregate,
            "select": select, "data_dir": data_dir, **more,
        }  # fmt: skip
        self._named = named(problem)
        self._data_dir = None if data_dir is None else str(data_dir)
        self._settings = _settings(self._named, self._given)
        check(self.config(), self._data_dir, problem=self._named.problem)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self._given.items() if value is not None)
        return f"Experiment({self._named.name!r}, {told})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._named.elsewhere is None:
            raise ConfigError(
                f"another process cannot load the problem {self._named.name!r}, {self._named.missing}; put it into a"
                " file of its own, like mytask.py, and say Experiment('mytask:problem', …)"
            )
        return _remade, (self._named.elsewhere, self._given)

    @property
    def problem(self) -> Problem:
        """What is learned."""
        return self._named.problem

    @in_python_words()
    def config(self, seed: int = 0) -> RunConfig:
        """Return the run's configuration, as its `config.toml` has it.

        `command()` of it is the command line that repeats the run, for a problem that has a name: one made in a
        notebook has none that `fl-server` could find.
        """
        return config_from({**self._settings, "seed": seed})

    def replace(self, **changes: Any) -> "Experiment":
        """Return an experiment that differs in these keywords: `run.replace(uplink="float32")`."""
        refuse_unknown("replace()", changes, ("problem", *_KEYWORDS), _ELSEWHERE)
        problem = changes.pop("problem", self.problem)
        if problem is self.problem and self._named.elsewhere is not None:
            problem = self._named.elsewhere
        return Experiment(problem, **{**self._given, **changes})

    @only_known
    def simulate(
        self,
        *,
        links: Link | Mapping[Link, float] | Sequence[Link] = None,
        devices: str | Mapping[str, float] = "cpu",
        profiles: str | Path | None = None,
        seed: int = 0,
        train: str = "sgd",
        dropout: float = 0.0,
        away: str | float = "60s",
        folder: str | Path | None = None,
        progress: bool | None = None,
        workers: int | None = None,
    ) -> Report:
        """Run it in this process, in virtual time, and return its report.

        `links` is what all phones are on: a name (`"3g"`; `fl-link list` prints all), a rate or two (`"256kbps/1mbps"`,
        up/down), a `featherfed.bandwidth_sim.profile.Profile`, or None for no limit; several by their shares, or a
        list with one for each phone. `profiles` is a TOML file with links of your own, which may be named too
        (docs/LINKS.md). `devices` is what they compute with, likewise: a name or a time for each step of
        training (`"slow"`, `"20ms"`). `seed` is of all that is random. With `train="none"` phones send noise of the
        size of updates. `dropout` is the probability that a phone leaves in a round in which it is asked, to be back
        after `away` (seconds, or text with a unit) in the mean.

        `folder` keeps the run, as `fl-server serve` does; without it nothing stays. `progress` None shows a bar on a
        terminal and in a notebook, True always, False never.

        So many `workers` train side by side (None: one a core, once that pays): this process, and others that load the
        problem by its name. The run is the same for any number, bit for bit. A problem that is defined in the program
        that runs, or in a notebook, has no such name, and is trained here alone.

        Raises `ConfigError` for what could not be run, and `LocalError` where the run does not come to its end. A run
        that goes on without phones that fail (theirs is no example, their loss is NaN) says so by a `RuntimeWarning`;
        `Round.failed` counts them. Other simulations of this process wait for this one; processes of their own run
        beside each other.
        """
        config = self.config(seed)
        fleet = _fleet(links, devices, train, dropout, away, phones=config.phones, own=_own_links(profiles))
        if workers is not None and (type(workers) is not int or workers < 1):
            raise ConfigError(f"workers = {workers!r} is not a number of processes from 1 on")
        with contextlib.ExitStack() as stack:
            stack.enter_context(in_python_words())
            if folder is None:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="featherfed-"))) / "run"
            else:
                path = _path(folder)
                _refuse_existing(path)
            stop = Stop()
            bar = stack.enter_context(ProgressBar(config.rounds, progress))
            kept = apart(
                lambda: simulate(
                    config, lambda: create(path.parent, path.name, config), fleet, named=self._named,
                    data_dir=self._data_dir, watcher=bar, started=lambda loop: stop.by(loop.stop),
                    kept=folder is not None, workers=workers,
                ),
                stop,
            )  # fmt: skip
            for sentence in bar.notes:
                # Two frames up, past the check of keywords, is the caller's line.
                warnings.warn(sentence, RuntimeWarning, stacklevel=3)
            return _report(kept, kept=folder is not None)

    @only_known
    @in_python_words()
    def serve(
        self,
        address: str = "127.0.0.1:8765",
        *,
        folder: str | Path,
        seed: int = 0,
        resume: bool = False,
        dashboard: str | None = None,
        dashboard_token: str | None = None,
        tokens: str | Path | None = None,
        tls_cert: str | Path | None = None,
        tls_key: str | Path | None = None,
        insecure: bool = False,
        durable: bool = True,
        progress: bool = True,
    ) -> Report:
        """Serve it to phones on sockets until its rounds are done, and return its report.

        Phones are `fl-edge run` or `swarm` with `--server ws://ADDRESS` and the problem's name. `address` is HOST:PORT;
        port 0 picks a free one, which is printed. `folder` keeps the run; with `resume` it goes on there. `dashboard`
        is the HOST:PORT of the live page (None: no page), with its token. Beyond this machine there must be `tokens`
        (a file of `fl-server token`) and TLS by `tls_cert` and `tls_key`, unless `insecure` lets TLS go. What is not
        `durable` is acknowledged before it is on the disk. `progress` prints what happens.

        Raises `ConfigError` for what could not be served, and `LocalError` where the run pauses: by Ctrl-C, or because
        too few phones answered.
        """
        config, path = self.config(seed), _path(folder)
        stop = Stop()

        @contextlib.asynccontextmanager
        async def beside(service: Service, folder: RunFolder, watchers: Watchers) -> AsyncIterator[None]:
            loop = asyncio.get_running_loop()
            stop.by(lambda: loop.call_soon_threadsafe(service.stop))
            yield

        host, port = _host_and_port(address)
        plan = RunPlan(
            config=config,
            entrance=EntranceOptions(
                host=host, port=port, tokens=_path_or_none(tokens), tls_cert=_path_or_none(tls_cert),
                tls_key=_path_or_none(tls_key), insecure=insecure,
            ),
            runs=path.parent,
            name=path.name,
            resumed=_resumed(path, config) if resume else None,
            problem=self.problem,
            data_dir=self._data_dir,
            durable=durable,
            watching=Watching(dashboard=dashboard, dashboard_token=dashboard_token),
            beside=beside,
        )  # fmt: skip
        if not resume:
            _refuse_existing(path, "; go on with resume=True")
        try:
            served = apart(lambda: serve_run(plan, Console(quiet=not progress)), stop)
        finally:
            # A server's process spares the collector what it loaded; this one is not the server's alone.
            gc.unfreeze()
        if served.paused is not None:
            raise LocalError(f"the run {path} pauses: {served.paused}; go on with resume=True")
        return _report(served.folder, kept=True)


def _remade(problem: str, given: dict[str, Any]) -> Experiment:
    return Experiment(problem, **given)


def _settings(problem: NamedProblem, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a run's configuration, all but the seed's."""
    rest = dict(given)
    local, server = rest.pop("local"), rest.pop("server")
    del rest["data_dir"]
    for name in ("cohort", "uplink", "downlink"):
        if rest[name] is None:
            del rest[name]
    if local is None:
        local = Training()
    if type(local) not in (Training, TrainingByRound):
        raise ConfigError(f"local = {local!r} does not say how phones train; ff.SGD(lr=0.1) does")
    first, later = (local.first, local.later) if isinstance(local, TrainingByRound) else (local, {})
    trained = {name: later.get(name, getattr(first, name)) for name in Training.__dataclass_fields__}
    rules = {
        "server_optimizer": _spelled("server", server, ServerOptimizer, "ff.FedAdam(lr=0.1)"),
        "aggregate": _spelled("aggregate", rest["aggregate"], Aggregate, "ff.TrimmedMean(0.1)"),
        "select": _spelled("select", rest["select"], Select, "ff.FastLinks()"),
    }
    step = {"server_lr": server.lr} if isinstance(server, ServerOptimizer) else {}
    return {**rest, **trained, **rules, **step, "problem": problem.name}


def _spelled(keyword: str, rule: Any, kind: type[Rule], like: str) -> str:
    """Return a rule as a run's configuration names it."""
    if isinstance(rule, str):
        return rule
    if isinstance(rule, type) and issubclass(rule, kind):
        raise ConfigError(f"{keyword} = {rule.__name__} is a class; give one of it, like {rule.__name__}(…)")
    if not isinstance(rule, kind):
        raise ConfigError(f"{keyword} = {rule!r} is no ff.{kind.__name__}; {like} is one")
    return spelled(rule, kind)


def _fleet(
    links: Any, devices: Any, train: Any, dropout: Any, away: Any, *, phones: int, own: Mapping[str, Profile]
) -> Fleet:
    """Return the phones of a simulation, checked."""
    if train not in ("sgd", "none"):
        raise ConfigError(f"train = {train!r} is not 'sgd' or 'none'")
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ConfigError(f"dropout = {dropout!r} is not a share from 0 to below 1")
    try:
        away_s = parse_duration(away) if isinstance(away, str) else float(away)
    except (LinkConfigError, TypeError, ValueError) as error:
        raise ConfigError(f"away = {away!r} is not a time, like '60s' or a number of seconds: {error}") from error
    if not 0 < away_s < float("inf"):
        raise ConfigError(f"away = {away!r} is not a time above 0")
    check_mix("device", devices)
    for device in devices if isinstance(devices, Mapping) else [devices]:
        if not isinstance(device, str):
            raise ConfigError(f"device {device!r} is neither a name nor a time a step, like 'slow' or '20ms'")
        parse_device(device)
    return Fleet(
        links=_links(links, phones, own), devices=devices, trains=train == "sgd", dropout=float(dropout), away_s=away_s
    )


def _own_links(file: Any) -> Mapping[str, Profile]:
    if file is None:
        return {}
    if not isinstance(file, str | Path):
        raise ConfigError(f"profiles = {file!r} is not the path of a TOML file with links, like 'my_links.toml'")
    try:
        return read_profiles(Path(file))
    except LinkConfigError as error:
        raise ConfigError(f"profiles: {error}") from error


def _links(links: Any, phones: int, own: Mapping[str, Profile]) -> Any:
    if isinstance(links, Mapping):
        check_mix("link", links)
        return {_link(each, own): share for each, share in links.items()}
    if isinstance(links, Sequence) and not isinstance(links, str):
        if len(links) != phones:
            raise ConfigError(f"links has {len(links)} links for {phones} phones; give one for each, or shares by name")
        return [_link(each, own) for each in links]
    return _link(links, own)


def _link(link: Any, own: Mapping[str, Profile]) -> Profile | None:
    """Return the profile of a link: a name, a rate, or itself."""
    if link is None or isinstance(link, Profile):
        return link
    if not isinstance(link, str):
        raise ConfigError(f"link {link!r} is neither a name like '3g', nor a rate like '256kbps', nor a Profile")
    try:
        return find_profile(link, own)
    except LinkConfigError as unknown:
        with contextlib.suppress(LinkConfigError):
            return profile_from_flags(bandwidth=link)
        raise ConfigError(f"{unknown}, and it is no rate like '256kbps' or '256kbps/1mbps'") from unknown


def _path(folder: Any) -> Path:
    if not isinstance(folder, str | Path) or not Path(folder).name:
        raise ConfigError(f"folder = {folder!r} is not the path of a folder, like 'runs/x'")
    return Path(folder)


def _path_or_none(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _refuse_existing(path: Path, way_out: str = "") -> None:
    if path.exists():
        raise ConfigError(f"the folder {path} exists; choose another one for this run{way_out}")


def _resumed(path: Path, config: RunConfig) -> RunFolder:
    """Return the folder of a run to go on with; raises `ConfigError` where it is of another one."""
    folder, kept = existing(path)
    for name in KNOWN:
        mine, theirs = config.spelled(name), kept.spelled(name)
        if mine != theirs:
            raise ConfigError(f"the run in {path} has {name} = {theirs!r}, and this experiment {name} = {mine!r}")
    return folder


def _host_and_port(address: Any) -> tuple[str, int]:
    with contextlib.suppress(ValueError):
        parts = urlsplit(f"//{address}")
        if parts.hostname and parts.port is not None and parts.netloc == address:
            return parts.hostname, parts.port
    raise ConfigError(f"address = {address!r} is not HOST:PORT, like '127.0.0.1:8765'")


def _report(folder: RunFolder, *, kept: bool) -> Report:
    report = Report.read(folder.path)
    return report if kept else replace(report, folder=None)
