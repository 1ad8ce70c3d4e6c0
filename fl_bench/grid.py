"""A grid of cells on this machine: one after the other, or a few at a time in worker processes."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from featherfed.errors import LocalError
from fl_bench.running import finished, run_cell
from fl_bench.scenario import Cell


def run_grid(cells: Sequence[Cell], out: Path, data_dir: str | None, *, jobs: int = 1) -> None:
    """Run all cells that are not finished; results are the same for any number of jobs.

    The first cell that fails ends the grid; what is finished stays, and the rest can be resumed.
    """
    left = [cell for cell in cells if not finished(cell, out)]
    if jobs == 1 or len(left) < 2:
        for cell in left:
            run_cell(cell, out, data_dir)
        return
    # A fresh interpreter a worker: a fork of a process that has run torch may hang in its locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(left)), mp_context=context) as pool:
        futures = [pool.submit(run_cell, cell, out, data_dir) for cell in left]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done() and not future.cancelled():
                    future.result()
        except BrokenProcessPool as error:
            raise LocalError("a worker process was killed; go on with --resume, perhaps with fewer --jobs") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
