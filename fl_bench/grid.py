"""A grid of cells on this machine: one after the other, or a few at a time in worker processes."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path

from featherfed.errors import LocalError
from featherfed.fl_bench.cells import left_to_run, run_cell
from featherfed.fl_bench.scenario import Cell
from featherfed.fl_bench.tether import tie
from featherfed.workers import cores


def run_grid(
    cells: Sequence[Cell], out: Path, data_dir: str | None, *, jobs: int = 1, workers: int | None = None
) -> None:
    """Run all cells that are not finished; results are the same for any number of jobs and of workers.

    So many `workers` train the phones of a cell in virtual time side by side (None: the cores, shared by the jobs).

    The first cell that fails ends the grid; what is finished stays, and the rest can be resumed. Workers end with this
    process, and at once where it is interrupted.
    """
    left = left_to_run(cells, out)
    if jobs == 1 or len(left) < 2:
        for cell in left:
            run_cell(cell, out, data_dir, workers)
        return
    if workers is None:
        workers = max(1, cores() // min(jobs, len(left)))
    # A fresh interpreter a worker: a fork of a process that has run torch may hang in its locks.
    context = multiprocessing.get_context("spawn")
    end, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(jobs, len(left)), mp_context=context, initializer=_begin_worker, initargs=(end,))
    with end, held, pool:
        futures = [pool.submit(run_cell, cell, out, data_dir, workers) for cell in left]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done() and not future.cancelled():
                    future.result()
        except BrokenProcessPool as error:
            raise LocalError("a worker process was killed; go on with --resume, perhaps with fewer --jobs") from error
        except KeyboardInterrupt:
            held.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(end: Connection) -> None:
    tie(os.dup(end.fileno()))
    # Ctrl-C in a terminal reaches the workers too: the tether ends them, without a traceback from each.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
