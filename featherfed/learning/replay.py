"""A step that a GPU repeats by itself: its kernels are recorded once, and started together from then on.

A step of many small kernels takes as long as Python needs to start them one by one, whatever the GPU could do. A
recording (a CUDA graph) starts all of them by one call. It repeats work on the memory that it was recorded with, so
what differs between two steps is copied to where it reads. What is computed is the same to the bit.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

PLAIN = 1
"""So many steps of each size are made before one is recorded: the GPU's libraries load and reserve in these."""
WORTH = 4
"""Recording takes as long as a few steps: of fewer it saves nothing."""


class Replayed:
    """Makes steps of a function of tensors: on a GPU by replaying it, where that is possible and there are enough.

    `step` changes tensors that it holds, and returns nothing: it may not look at what they contain, nor make its choice
    of kernels by it. Where it cannot be recorded it is called, as it is on the CPU.
    """

    def __init__(self, step: Callable[..., None], device: str) -> None:
        self._step = step
        on_gpu = torch.device(device).type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        self._made: dict[tuple[torch.Size, ...], int] = {}
        self._recorded: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, tuple[torch.Tensor, ...]]] = {}
        self._possible = self._stream is not None
        self._pool: Any = None

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Make all steps in this context: a GPU records no steps of the stream that everything else goes by."""
        if self._stream is None:
            yield
            return
        others = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(others)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            # After a fault too: what the steps held may be given to others now.
            others.wait_stream(self._stream)

    def __call__(self, *given: torch.Tensor, left: int) -> None:
        """Make a step; `left` more of these sizes are to come."""
        sizes = tuple(each.shape for each in given)
        made = self._made[sizes] = self._made.get(sizes, 0) + 1
        if sizes not in self._recorded and self._possible and made > PLAIN and left >= WORTH:
            self._record(sizes, given)
        if sizes in self._recorded:
            graph, read = self._recorded[sizes]
            for kept, new in zip(read, given, strict=True):
                kept.copy_(new)
            graph.replay()
        else:
            self._step(*given)

    def _record(self, sizes: tuple[torch.Size, ...], given: tuple[torch.Tensor, ...]) -> None:
        read, graph = tuple(each.clone() for each in given), torch.cuda.CUDAGraph()
        try:
            # One pool for all: no step leaves anything in it that another could overwrite.
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                self._step(*read)
        except RuntimeError:
            # Nothing has been computed: the step is still to be made, by itself as all that follow.
            self._possible = False
            return
        self._recorded[sizes] = graph, read
