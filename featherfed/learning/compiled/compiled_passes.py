"""The compiled passes as local training and evaluation use them."""

import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from featherfed.compiling.emitter import LANES
from featherfed.errors import LocalError
from featherfed.learning.channels_last import channels_last, rows_of
from featherfed.learning.compiled.dense import above, descend, infer, turn
from featherfed.learning.compiled.kernels import walk
from featherfed.learning.compiled.program import Program, stages_of
from featherfed.learning.flat import FlatModel
from featherfed.learning.in_place import InPlace
from featherfed.problem import Examples

__all__ = ["LANES", "Compiled", "check"]

Parts = tuple[torch.Tensor, ...]
AT_ONCE = 10
"""Examples of an evaluation that go through all layers before the next ones, so that they stay in the cache."""

FEW = 2
"""Inputs have a background where fewer than one number in so many is another."""

_programs: "WeakKeyDictionary[FlatModel, dict[tuple[int, ...], Program]]" = WeakKeyDictionary()
"""Trainers that share a model take turns, and share what lies between its layers."""


class Compiled(InPlace):
    """The passes of `kernels.py`, of a chain of layers on this machine's processor."""

    recorded = False

    def __init__(self, model: FlatModel, *, images: bool) -> None:
        self.images = images
        """Whether the chain begins with what knows images, and not with a dense layer."""
        self._model = model
        self.loss: Callable[..., torch.Tensor] = cross_entropy
        self._weights, self._gradient = model.weights.numpy(), model.gradient.numpy()
        self._seen: Parts = ()
        self._rows: npt.NDArray[np.float32] = np.zeros(0, np.float32)

    @classmethod
    def of(cls, model: FlatModel, shape: tuple[int, ...]) -> "Compiled | None":
        """Return the passes of a chain that fits `backprop.py`; None for one that these do not know, or cannot take.

        `shape` is that of one input. The first of a model and shape go through it once.
        """
        modules = list(model.module.children())
        stages = stages_of(modules)
        if stages is None:
            return None
        images = type(modules[0]) is not nn.Linear and not _is_flat(modules)
        passes = (cls if images else _Dense)(model, images=images)
        if passes._key(shape) not in _programs.get(model, {}):
            if not Program.takes(stages, passes._key(shape)):
                return None
            passes.outputs(torch.zeros(1, *shape))
            passes.begin()
        return passes

    def prepare(self, examples: Examples) -> tuple[Parts, torch.Tensor]:
        """Return images with their channels last in memory, and targets as they are."""
        (inputs,) = examples.parts
        inputs = channels_last(inputs)
        return (inputs.contiguous() if inputs.dim() == 2 else inputs,), examples.targets.contiguous()

    def rows(self, parts: Parts, chosen: torch.Tensor) -> Parts:
        """Return images with their channels last."""
        return (rows_of(parts[0], chosen),)

    def gradient(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Write the gradient."""
        return self._walk(parts, targets, chosen, 0.0, steps=False)

    def descend(
        self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor, batch: int, rate: float
    ) -> torch.Tensor:
        """Step by gradients that are never in memory as a whole."""
        return torch.stack([self._walk(parts, targets, some, rate, steps=True) for some in torch.split(chosen, batch)])

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits of inputs, (examples, classes) float32."""
        rows = self._flat((inputs,))
        length = rows.size // len(inputs)
        program = self._program(inputs, min(AT_ONCE, len(inputs)))
        labels, parts = np.zeros(0, np.int64), []
        for begin in range(0, len(inputs), AT_ONCE):
            chosen = np.arange(begin, min(begin + AT_ONCE, len(inputs)))
            walk(
                program.table, program.state, self._weights, self._gradient, rows, length, program.lines, labels,
                chosen, np.float32(0), False, False,
            )  # fmt: skip
            parts.append(program.logits(len(chosen)))
        return torch.from_numpy(np.concatenate(parts))

    def _walk(
        self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor, rate: float, *, steps: bool
    ) -> torch.Tensor:
        rows = self._flat(parts)
        program = self._program(parts[0], len(chosen))
        loss = walk(
            program.table, program.state, self._weights, self._gradient, rows, rows.size // len(targets), program.lines,
            targets.numpy(), chosen.numpy(), np.float32(rate), True, steps,
        )  # fmt: skip
        return torch.tensor(loss, dtype=torch.float32)

    def _flat(self, parts: Parts) -> npt.NDArray[np.float32]:
        """Return inputs one behind the other, images with their channels last unless they are but vectors."""
        if parts is not self._seen:
            inputs = parts[0].permute(0, 2, 3, 1) if self.images else parts[0]
            self._rows, self._seen = inputs.reshape(-1).numpy(), parts
        return self._rows

    def _key(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.images else (math.prod(shape),)

    def _program(self, inputs: torch.Tensor, count: int) -> Program:
        known = _programs.setdefault(self._model, {})
        key = self._key(tuple(inputs.shape[1:]))
        program = known.get(key)
        if program is None or program.capacity < count:
            stages = stages_of(list(self._model.module.children()))
            assert stages is not None, "it was asked whether they fit"
            program = known[key] = Program(stages, key, count)
        return program


class _Dense(Compiled):
    """The passes of a chain of dense layers alone, which steps by those of `dense.py`."""

    at_once = 200

    def __init__(self, model: FlatModel, *, images: bool) -> None:
        super().__init__(model, images=images)
        self._turned: Program | None = None
        self._stepped = False
        self._shift = False, np.float32(0)

    def _flat(self, parts: Parts) -> npt.NDArray[np.float32]:
        """Return inputs one behind the other; find out whether most numbers are what the first one is."""
        if parts is not self._seen:
            rows = super()._flat(parts)
            background = rows[0] if len(rows) and np.isfinite(rows[0]) else np.float32(0)
            shifted = FEW * above(rows, background) < len(rows)
            self._shift = shifted, background if shifted else np.float32(0)
        return self._rows

    def begin(self) -> None:
        """Take the weights as they are now."""
        self._turned, self._stepped = None, False

    def end(self) -> None:
        """Have the model's weights be what was descended to."""
        if self._turned is not None:
            turn(self._turned.table, self._turned.work, self._turned.kept, self._weights, True)
        self._turned, self._stepped = None, False

    def descend(
        self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor, batch: int, rate: float
    ) -> torch.Tensor:
        """Step on weights that lie the other way round until the `end`."""
        rows = self._flat(parts)
        program = self._with_weights(parts[0], min(batch, len(chosen)))
        losses = np.empty(-(-len(chosen) // batch), np.float32)
        self._stepped = True
        descend(
            program.table, program.state, program.kept, rows, rows.size // len(targets), *self._shift,
            targets.numpy(), chosen.numpy(), batch, np.float32(rate), losses,
        )  # fmt: skip
        return torch.from_numpy(losses)

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits of inputs, (examples, classes) float32."""
        if self._stepped:
            self.end()
        rows = self._flat((inputs,))
        program = self._with_weights(inputs, min(AT_ONCE, len(inputs)))
        logits = np.empty((len(inputs), program.classes), np.float32)
        length = rows.size // len(inputs)
        infer(program.table, program.state, program.kept, rows, length, *self._shift, AT_ONCE, logits)
        return torch.from_numpy(logits)

    def _with_weights(self, inputs: torch.Tensor, count: int) -> Program:
        """Return a program with room for so many inputs, and with the weights as they are."""
        program = self._program(inputs, count)
        if program is not self._turned:
            self.end()
            turn(program.table, program.work, program.kept, self._weights, False)
            self._turned = program
        return program


def _is_flat(modules: list[nn.Module]) -> bool:
    return type(modules[0]) is nn.Flatten


def check() -> None:
    """Hold a step against torch's own; raises `LocalError` where what was compiled computes something else."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 18, 3), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(18, 4, 2), nn.Flatten(), nn.Linear(16, 19), nn.ReLU(), nn.Linear(19, 3),
        )  # fmt: skip
        model = FlatModel(module)
        passes = Compiled(model, images=True)
        inputs, targets = torch.randn(3, 2, 8, 8, generator=generator), torch.tensor([2, 0, 1])
        loss = nn.functional.cross_entropy(module(inputs), targets)
        torch.autograd.backward(loss)
        wanted = model.gradient.clone()
        parts, targets = passes.prepare(Examples(inputs, targets))
        found = passes.gradient(parts, targets, torch.arange(3))
        model.gradient.sub_(wanted)
    far = max(abs(float(found) - float(loss.detach())), float(model.gradient.abs().max()))
    if not far < 1e-5:
        raise LocalError(f"a gradient by compiled passes is {far:.1e} away from torch's")
