"""One step on two examples before the first round: what does not fit together is said at once, in the user's terms."""

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
    chosen = torch.arange(min(len(examples), EXAMPLES))
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
            what = f"outputs of {_shapes(outputs)} and targets of {_shapes(targets)}"
            with blaming(f"the loss{place_of(problem.loss)} does not take {what}"):
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
