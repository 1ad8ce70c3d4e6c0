"""A problem's model as it is learned: made under a seed, refused where it could not be, and described."""

import hashlib

import torch
from torch import nn

from featherfed.codec.layout import Layout, Tensor
from featherfed.errors import ProblemError
from featherfed.fingerprint import Fingerprint
from featherfed.problem import Problem
from featherfed.problem_loading import load_problem
from featherfed.user_code import blaming, place_of

MAX_TENSORS = 4096
MAX_NAME = 256
MAX_DIMENSIONS = 16
MAX_DESCRIBED_BYTES = 96 * 1024
"""What names and shapes of all tensors take in Welcome, a message of up to 128 KiB (featherfed.wire)."""
_RUNNING = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def build(problem: Problem, seed: int) -> nn.Module:
    """Return the problem's model with weights drawn from `seed`; torch's own random state is left as it was.

    Raises `ProblemError` for what cannot be learned here.
    """
    with blaming(f"problem {problem.name}: model() fails"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = problem.model()
    try:
        _check(module)
    except ProblemError as error:
        raise ProblemError(f"problem {problem.name}{place_of(problem.model)}: {error}") from error
    return module


def _check(module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        raise ProblemError(f"model() returns a {type(module).__name__}, and no torch.nn.Module")
    learned = dict(_learned(module))
    if not learned:
        raise ProblemError("the model has no parameter that requires a gradient, so there is nothing to learn")
    for name, parameter in learned.items():
        if isinstance(parameter, nn.UninitializedParameter):
            raise ProblemError(f"parameter {name!r} has no shape yet; give lazy layers their sizes")
        if parameter.dtype != torch.float32:
            raise ProblemError(f"parameter {name!r} is {parameter.dtype}, and what is learned is torch.float32")
    for name, part in module.named_modules():
        if isinstance(part, _RUNNING) and part.track_running_stats and not _frozen(part):
            raise ProblemError(
                f"layer {name!r} is {type(part).__name__} with running statistics, which are no parameters and differ"
                " on every phone; use torch.nn.GroupNorm, or track_running_stats=False, or freeze it"
            )
    rows = [(name, tuple(tensor.shape)) for name, tensor in (*learned.items(), *_fixed(module))]
    if len(rows) > MAX_TENSORS:
        raise ProblemError(f"the model has {len(rows)} tensors, more than {MAX_TENSORS}")
    longest = max((name for name, _ in rows), key=len)
    if len(longest) > MAX_NAME:
        raise ProblemError(f"the name of tensor {longest!r} has {len(longest)} characters, more than {MAX_NAME}")
    deepest, shape = max(rows, key=lambda row: len(row[1]))
    if len(shape) > MAX_DIMENSIONS:
        raise ProblemError(f"tensor {deepest!r} has {len(shape)} dimensions, more than {MAX_DIMENSIONS}")
    # At most nine bytes a number, 16 around a name and its digest, and 19 that say how it is drawn.
    described = sum(len(name.encode()) + 9 * len(shape) + 16 + 19 for name, shape in rows)
    if described > MAX_DESCRIBED_BYTES:
        raise ProblemError(
            f"the names and shapes of the model's {len(rows)} tensors take {described} bytes, more than the"
            f" {MAX_DESCRIBED_BYTES} that a phone is told; give its parts shorter names, or fewer tensors"
        )


def _frozen(part: nn.Module) -> bool:
    parameters = list(part.parameters(recurse=False))
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def training_mode(module: nn.Module) -> None:
    """Put a model in training mode, but for frozen layers with running statistics, which stay as they are."""
    module.train()
    for part in module.modules():
        if isinstance(part, _RUNNING) and part.track_running_stats and _frozen(part):
            part.eval()


def _learned(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that are learned; tied ones are one, under their first name."""
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def _fixed(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    frozen = [(name, parameter) for name, parameter in module.named_parameters() if not parameter.requires_grad]
    return [*frozen, *module.named_buffers()]


def layout(module: nn.Module) -> Layout:
    """Return how the learned parameters lie in the flat vector."""
    return Layout(tuple(Tensor(name, tuple(parameter.shape)) for name, parameter in _learned(module)))


def layout_of(name: str) -> Layout:
    """Return the layout of a problem by its name."""
    return layout(build(load_problem(name), 0))


def fingerprint(module: nn.Module) -> Fingerprint:
    """Return what must be the same on both ends; `module` is fresh from `build(problem, 0)`."""
    fixed = [(Tensor(name, tuple(tensor.shape)), _digest(tensor)) for name, tensor in _fixed(module)]
    return Fingerprint(layout(module), tuple(fixed))


def buffers_of(module: nn.Module) -> dict[str, bytes]:
    """Return a digest of each buffer, to see whether training changes one."""
    return {name: _digest(buffer) for name, buffer in module.named_buffers()}


def _digest(tensor: torch.Tensor) -> bytes:
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    digest = hashlib.sha256(f"{tensor.dtype}\0".encode())
    digest.update(data.data)
    return digest.digest()[:8]
