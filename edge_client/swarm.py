"""Many phones on one machine: a few worker processes, each with many phones on one event loop and one import of torch.

On the wire a phone of a swarm is what `fl-edge run` is: its own connection, link, name, shard and state directory.
"""

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from bandwidth_sim.profile import Profile
from edge_client.one_phone import PhoneOptions, play_phone
from featherfed.errors import FeatherfedError


def phone_options(options: PhoneOptions, count: int, profiles: Sequence[Profile]) -> list[PhoneOptions]:
    """Return each phone's options: numbered names and state directories, links dealt in turn."""
    phones = []
    for number in range(count):
        phones.append(
            replace(
                options,
                name=f"{options.name or 'swarm'}-{number}",
                state_dir=str(Path(options.state_dir) / f"{number}") if options.state_dir else None,
                profile=profiles[number % len(profiles)] if profiles else options.profile,
            )
        )
    return phones


def _work(phones: list[PhoneOptions]) -> None:
    async def play_all() -> list[str | BaseException]:
        # One training at a time: two in one process would only share its lock.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        return await asyncio.gather(*(play_phone(phone, lambda line: None) for phone in phones), return_exceptions=True)

    failures = [outcome for outcome in asyncio.run(play_all()) if isinstance(outcome, BaseException)]
    for failure in failures:
        if not isinstance(failure, FeatherfedError):
            raise failure
    if failures:
        raise SystemExit(f"{len(failures)} of {len(phones)} phones failed: {failures[0]}")


def run_swarm(phones: list[PhoneOptions], workers: int) -> bool:
    """Play all phones until the server ends them; return whether all ended well."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(phones[worker::workers],)) for worker in range(workers)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return all(process.exitcode == 0 for process in processes)
