"""A worker process and its emulator, which may be in the middle of a training of its own."""

import subprocess
import sys

SCRIPT = """
import queue, sys, threading, types
from multiprocessing import Pipe
from featherfed.edge_client import training_process

begun = threading.Semaphore(0)

class Host:
    def __init__(self, plan):
        pass

    def evaluate(self, *given):
        begun.release()
        return bytes(5_000_000)

sys.modules["featherfed.edge_client.training_host"] = types.SimpleNamespace(TrainingHost=Host)
ours, theirs = Pipe()
orders = queue.SimpleQueue()
for order in (None, ("weights", 1, None), *(("evaluate", number, None, 1, 0, 1) for number in (1, 2))):
    orders.put(order)
threading.Thread(target=training_process._serve, args=(theirs, orders), daemon=True).start()
assert ours.recv() is None
print("worked on", sum(begun.acquire(timeout=20) for _ in range(2)))
"""


def test_a_worker_goes_on_while_nobody_reads_an_update_that_no_buffer_holds() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.stdout == "worked on 2\n", done.stderr
