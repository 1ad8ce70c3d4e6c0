"""One step on two examples before the first round: what does not fit together is said at once, in the user's terms."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from featherfed.errors import ProblemError
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import buffers_of, training_mode
from featherfed.learning.passes import Autograd
from featherfed.problem import Examples, Problem
from featherfed.user_code import blaming, place_of

EXAMPLES = 2


def dry_step(problem: Problem, examples: Examples, model: FlatModel) -> None:
    """Go forward and backward once with a fresh model; raises `ProblemError` for what would fail in a round.

    torch's own random state is left as it was.
    """
    chosen = torch.arange(min(len(examples), EXAMPLES), device=model.weights.device)
    before = buffers_of(model.module)
    passes = Autograd(problem, model)
    parts, targets = passes.prepare(examples)
    parts, targets = passes.rows(parts, chosen), targets.index_select(0, chosen)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        training_mode(model.module)
        with torch.enable_grad():
            with blaming(f"the model{place_of(problem.model)} does not take inputs of {_shapes(*parts)}"):
                outputs = model.module(*parts)
            loss_at = place_of(problem.loss)
            # A loss of torch's has no line in the user's file; the model that was meant for it has.
            made_by = "" if loss_at else f" from the model{place_of(problem.model)}"
            what = f"outputs of {_shapes(outputs)}{made_by} and targets of {_shapes(targets)}"
            with blaming(f"the loss{loss_at} does not take {what}"), _no_broadcasting():
                loss = problem.loss(outputs, targets)
                _check_loss(loss)
                loss.backward()  # type: ignore[no-untyped-call]
    after = buffers_of(model.module)
    changed = next((name for name in before if before[name] != after[name]), None)
    if changed is not None:
        raise ProblemError(
            f"problem {problem.name}{place_of(problem.model)}: training changes the buffer {changed!r}, and only"
            " parameters travel; running statistics are refused, use torch.nn.GroupNorm"
        )


@contextmanager
def _no_broadcasting() -> Iterator[None]:
    """Let torch's warning that outputs and targets differ in shape be an error: the model would learn something else.

    Targets (n,) under outputs (n, 1) are compared each with each, and the mean of them all is what is least.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Using a target size", UserWarning)
        yield


def _check_loss(loss: object) -> None:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        kind = _shapes(loss) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise ProblemError(f"it returns {kind}, and not one number, the batch's mean")
    if not loss.requires_grad:
        raise ProblemError("it returns a number that does not depend on what is learned")


def _shapes(*tensors: object) -> str:
    return ", ".join(
        f"{str(each.dtype).removeprefix('torch.')} {tuple(each.shape)}"
        if isinstance(each, torch.Tensor)
        else type(each).__name__
        for each in tensors
    )
