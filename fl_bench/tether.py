"""Processes that end with the one that started them, however it ends: Ctrl-C, SIGTERM or kill -9.

The starter holds the write end of a pipe, and nobody else does: the kernel closes it with the process. Unlike Linux's
PR_SET_PDEATHSIG this does not mistake the end of a thread for that of its process.

    python -m featherfed.fl_bench.tether featherfed.commands.server …   the module, tied to its standard input's pipe
"""

import os
import runpy
import sys
import threading


def tie(end: int) -> None:
    """End this process at once when the other end of a pipe is closed; `end` is the descriptor to read from."""

    def wait() -> None:
        os.read(end, 1)
        # Nobody is left who would want an orderly end; what a run has made durable can be resumed.
        os._exit(1)

    threading.Thread(target=wait, name="tether", daemon=True).start()


def main() -> None:
    """Run the module that is named first, with the arguments behind it."""
    tie(sys.stdin.fileno())
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
