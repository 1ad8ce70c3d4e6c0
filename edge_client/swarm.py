"""Many phones on one machine: a few worker processes, each with many phones on one event loop.

torch is imported once, in a process that does nothing else and that the workers are forked from; a problem is loaded
once a worker, and all phones of a worker train on one model, in turns, or on a GPU as one batch.

On the wire a phone of a swarm is what `fl-edge run` is: its own connection, token, link, name, shard and state
directory.
"""

import asyncio
import contextlib
import multiprocessing
import os
import resource
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from featherfed.bandwidth_sim.profile import Profile
from featherfed.commandline import streams
from featherfed.commandline.signals import kept_from_children
from featherfed.edge_client.local_problem import LocalProblem
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.edge_client.training_queue import TrainingQueue
from featherfed.edge_client.training_work import in_a_thread
from featherfed.errors import ConfigError, FeatherfedError

OTHER_FILES = 128
"""Descriptors of a worker for everything but its phones."""
WITHOUT_TORCH = ("featherfed.edge_client.swarm",)
WITH_TORCH = (*WITHOUT_TORCH, "featherfed.learning.training", "featherfed.learning.loaded_passes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """What each phone of a swarm is given of its own; `profiles` and `devices` (`parse_device`) are dealt in turn."""

    profiles: Sequence[Profile] = ()
    devices: Sequence[tuple[str, float]] = ()
    tokens: Path | None = None


def phone_options(options: PhoneOptions, count: int, deal: Deal = Deal()) -> list[PhoneOptions]:
    """Return each phone's options: numbered names and state directories, shards counted on from the first.

    Where there are several addresses, each phone begins with another one.

    Raises `ConfigError` where there is no token or no shard for one of them.
    """
    tokens = None if deal.tokens is None else read_tokens(deal.tokens)
    phones = []
    for number in range(count):
        name = f"{options.name or 'swarm'}-{number}"
        token, shard = options.token, options.shard
        if tokens is not None:
            if name not in tokens:
                raise ConfigError(f"{deal.tokens} has no token for {name}; it needs a line NAME TOKEN for each phone")
            token = tokens[name]
        if shard is not None:
            shard = (shard[0] + number, shard[1])
            if shard[0] >= shard[1]:
                raise ConfigError(
                    f"--shard {options.shard[0] if options.shard else 0}/{shard[1]} leaves no shard for {name};"
                    f" choose --count {number} at the most, or a lower first shard"
                )
        compute, step_s = (
            deal.devices[number % len(deal.devices)] if deal.devices else (options.compute, options.step_s)
        )
        first = number % (1 + len(options.others))
        servers = (options.server, *options.others)
        server, *others = servers[first:] + servers[:first]
        phones.append(
            replace(
                options,
                server=server,
                others=tuple(others),
                name=name,
                token=token,
                shard=shard,
                compute=compute,
                step_s=step_s,
                state_dir=str(Path(options.state_dir) / f"{number}") if options.state_dir else None,
                profile=deal.profiles[number % len(deal.profiles)] if deal.profiles else options.profile,
            )
        )
    return phones


def read_tokens(path: Path) -> dict[str, str]:
    """Return tokens by phone from a file of lines `NAME TOKEN`; raises `ConfigError` if it is not one."""
    tokens = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the tokens {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, _, token = line.strip().rpartition(" ")
            if not name.strip():
                raise ConfigError(f"{path}, line {number}: {line!r} is not NAME TOKEN")
            tokens[name.strip()] = token
    return tokens


class _Worker:
    """The phones of one process."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._local: dict[tuple[str, str], LocalProblem] = {}
        self._queue = TrainingQueue()

    async def play_all(self, phones: list[PhoneOptions]) -> list[str | BaseException]:
        # One training at a time: two in one process would only share its lock, and the model is shared too.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        return await asyncio.gather(*(self._play(phone) for phone in phones), return_exceptions=True)

    async def _play(self, options: PhoneOptions) -> str:
        def say(line: str) -> None:
            if not self._quiet:
                # One write a line: workers share the pipe.
                sys.stdout.write(f"{options.name}: {line}\n")
                sys.stdout.flush()

        trains = in_a_thread if options.compute == "cpu" else self._queue
        end = await play_phone(options, say, make_local=self._make_local, trains=trains)
        say(end)
        return end

    def _make_local(self, name: str, device: str) -> LocalProblem:
        if (name, device) not in self._local:
            # A server that came back with another run: nobody needs the one before.
            self._local = {(name, device): LocalProblem(name, device)}
        return self._local[name, device]


def _end_with_swarm() -> None:
    swarm = multiprocessing.parent_process()
    assert swarm is not None, "workers are started by a swarm"
    swarm.join()
    os._exit(1)


def _work(phones: list[PhoneOptions], quiet: bool, tells: bool) -> None:
    # However the swarm ends, by kill -9 too: its phones would go on without it.
    threading.Thread(target=_end_with_swarm, name="tether", daemon=True).start()
    with streams.guarded(tells=tells):
        streams.keep_on()
        _play(phones, quiet)


def _play(phones: list[PhoneOptions], quiet: bool) -> None:
    outcomes = asyncio.run(_Worker(quiet=quiet).play_all(phones))
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for failure in failures:
        if not isinstance(failure, FeatherfedError):
            raise failure
    if failures:
        # Each worker knows of its own phones only, and says so.
        first = next(phone.name for phone, outcome in zip(phones, outcomes, strict=True) if outcome is failures[0])
        more = f" and {len(failures) - 1} more of its worker" if len(failures) > 1 else ""
        raise SystemExit(f"{first}{more} failed: {failures[0]}")


def allow_files(phones: Sequence[PhoneOptions], workers: int) -> None:
    """Raise this process's limit of open files, which its workers inherit, to what the phones of one of them need.

    Raises `ConfigError` where the system does not let it.
    """
    each = -(-len(phones) // workers)
    # A link stands between two more sockets of the phone's process; then there is what it keeps on the disk.
    sockets = 3 if any(phone.profile is not None for phone in phones) else 1
    needed = each * (sockets + 1) + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        fit = (hard - OTHER_FILES) // (sockets + 1)
        raise ConfigError(
            f"--count {len(phones)} in --workers {workers} needs {needed} open files a worker, and the system allows"
            f" {hard}; raise ulimit -n, give more --workers, or choose --count {max(0, fit * workers)} at the most"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def workers_for(phones: Sequence[PhoneOptions]) -> int:
    """Return how many processes phones are spread over by themselves: one a core, and one where all train on a GPU.

    There they train as one batch, and each process would take its share of the GPU's memory.
    """
    on_gpu = all(phone.train and phone.compute != "cpu" for phone in phones)
    cores = 1 if on_gpu else os.cpu_count() or 1
    return min(cores, len(phones))


def run_swarm(phones: list[PhoneOptions], workers: int, *, quiet: bool = True) -> bool:
    """Play all phones until the server ends them; return whether all ended well.

    Raises `ConfigError` where the system does not let a process have so many connections.
    """
    allow_files(phones, workers)
    trains = any(phone.train for phone in phones)
    # A forked child of a process that has used a GPU cannot use it.
    forks = "forkserver" in multiprocessing.get_all_start_methods() and all(phone.compute == "cpu" for phone in phones)
    context: multiprocessing.context.BaseContext = multiprocessing.get_context("forkserver" if forks else "spawn")
    if isinstance(context, multiprocessing.context.ForkServerContext):
        context.set_forkserver_preload([*(WITH_TORCH if trains else WITHOUT_TORCH)])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    processes = [
        context.Process(target=_work, args=(phones[worker::workers], quiet, worker == 0))  # type: ignore[attr-defined]
        for worker in range(workers)
    ]
    try:
        # Ctrl-C is for this process, which ends them.
        with kept_from_children():
            for process in processes:
                process.start()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()
    return all(process.exitcode == 0 for process in processes)
