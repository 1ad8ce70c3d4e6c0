"""Gateways as processes of this machine, forked from one that has imported all that they need.

They end with the process that started them, however that ends.
"""

import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from featherfed.commandline.signals import kept_from_children
from featherfed.edge_client.phone import RunPausedError
from featherfed.errors import ConfigError, FeatherfedError
from featherfed.gateway.reports import Ended, Failed, GatewayDiedError, Log, Report, log_file
from featherfed.gateway.serving import GatewayPlan, GatewayStoppedError, play

STOP_S = 5.0


def outcome(plan: GatewayPlan, report: Callable[[Report], None], *, stoppable: bool = False) -> Ended | Failed:
    """Play a gateway, with its lines in its log; return how it ended."""
    with Log(plan.folder, report) as watchers:
        try:
            return Ended(play(plan, watchers, stoppable=stoppable))
        except GatewayStoppedError:
            raise
        except RunPausedError as error:
            return Ended(f"the run pauses: {error.reason}")
        except FeatherfedError as error:
            watchers.note(str(error))
            return Failed(str(error), isinstance(error, ConfigError))


class LocalHost:
    """One process at a time."""

    place = ""

    def __init__(self) -> None:
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self._context.set_forkserver_preload(["featherfed.gateway.processes"])

    async def play(self, plan: GatewayPlan, report: Callable[[Report], None]) -> str:
        """Return the gateway's last sentence; see `GatewayHost`."""
        loop = asyncio.get_running_loop()
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(plan, theirs), daemon=True)
        messages: asyncio.Queue[Report | None] = asyncio.Queue()

        def readable() -> None:
            try:
                messages.put_nowait(ours.recv())
            except (EOFError, OSError):
                loop.remove_reader(ours.fileno())
                messages.put_nowait(None)

        try:
            await loop.run_in_executor(None, _start, process)
            theirs.close()
            loop.add_reader(ours.fileno(), readable)
            while (message := await messages.get()) is not None:
                if isinstance(message, Ended):
                    return message.sentence
                if isinstance(message, Failed):
                    raise message.error(plan.index)
                report(message)
            await loop.run_in_executor(None, process.join)
            raise GatewayDiedError(_cause(process.exitcode, plan))
        finally:
            loop.remove_reader(ours.fileno())
            ours.close()
            await asyncio.shield(loop.run_in_executor(None, _end, process))


def _cause(exitcode: int | None, plan: GatewayPlan) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {-exitcode}, {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}, see {log_file(plan.folder)}"


def _start(process: Any) -> None:
    # Ctrl-C is for the root: it pauses, and its gateways hear of it.
    with kept_from_children():
        process.start()


def _end(process: Any) -> None:
    """End a process that is not needed any more: it may be saying goodbye to its phones."""
    if process.pid is None:
        return
    process.join(STOP_S)
    if process.is_alive():
        process.terminate()
        process.join(STOP_S)
    if process.is_alive():
        process.kill()
    process.join()


def _work(plan: GatewayPlan, pipe: "Connection") -> None:
    threading.Thread(target=_follow_parent, daemon=True).start()

    def report(message: Report) -> None:
        with contextlib.suppress(OSError):
            pipe.send(message)

    try:
        report(outcome(plan, report, stoppable=True))
    except GatewayStoppedError:
        pass
    except BaseException:
        with open(log_file(plan.folder), "a") as log:
            traceback.print_exc(file=log)
        os._exit(1)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was started by another"
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
