"""Decoding updates into the sum of a round, by numpy and compiled, by one thread and by several.

What it takes without a server around it; the ways take turns.
"""

import itertools
import time
from statistics import median
from typing import Any

Times = dict[str, dict[str, list[float]]]
"""By way and number of threads."""
LEAST_S = 0.1
"""How long each way works in its turn, at least."""


def measure(problem: str, spec: str, most: int, turns: int) -> dict[str, Any]:
    """Return microseconds and CPU microseconds of an update by 1, 2, … `most` threads, by way; medians.

    The ways are "numpy", and "compiled" where numba is installed.
    Updates come as `server/rounds/folding.py` gives them: in batches of what is decoded together.
    """
    from featherfed.codec import fast, fast_loading
    from featherfed.codec.fold import Update
    from featherfed.codec.pipeline import Pipeline
    from featherfed.codec.threads import Threads
    from featherfed.learning.models import layout_of
    from featherfed.learning.noise import noise_update
    from featherfed.randomness import RoundKey
    from featherfed.server.allocator import give_back_vectors
    from featherfed.server.rounds.folding import BATCH, GROUP_BYTES

    give_back_vectors()
    layout, pipeline = layout_of(problem), Pipeline.parse(spec)
    payloads = []
    for shard in range(8):
        key = RoundKey(0, 1, shard)
        payloads.append(pipeline.encode(noise_update(pipeline.space(layout, key).size, key), layout, key).payload)
    together = max(1, min(BATCH, -(-GROUP_BYTES // len(payloads[0]))))
    batch = [Update(payloads[shard % 8], RoundKey(0, 1, shard), 1) for shard in range(together)]
    ways = {"numpy": None} | ({"compiled": fast.kernels()} if fast_loading.load() else {})
    counts = range(1, most + 1)
    threads = {count: Threads(count) for count in counts}
    wall: Times = {way: {str(count): [] for count in counts} for way in ways}
    cpu: Times = {way: {str(count): [] for count in counts} for way in ways}
    for turn in range(turns + 1):
        for way, count in itertools.product(ways, counts):
            fast.use(ways[way])
            fold = pipeline.fold(layout, RoundKey(0, 1), updates=1 << 20, threads=threads[count])
            done, began_s, began_cpu_s = 0, time.perf_counter(), time.process_time()
            while (took_s := time.perf_counter() - began_s) < LEAST_S:
                assert not any(fold.add_all(batch)), "the updates are valid"
                done += len(batch)
            if turn:  # the first one finds caches that are empty
                wall[way][str(count)].append(1e6 * took_s / done)
                cpu[way][str(count)].append(1e6 * (time.process_time() - began_cpu_s) / done)
    return {
        "problem": problem,
        "spec": spec,
        "batch": together,
        "us": _medians(wall),
        "cpu_us": _medians(cpu),
    }


def _medians(found: Times) -> dict[str, dict[str, float]]:
    return {way: {count: median(each) for count, each in by.items()} for way, by in found.items()}
