"""Convolutions by products of matrices, for many models at once.

A convolution of many models, each with weights and images of its own, is one in groups to torch, and cuDNN computes
the groups one after the other: a step of a hundred `lite` started 2,400 kernels for its gradients by inputs alone. With
the images' patches as columns it is a product of matrices for each model, and a GPU computes all of them at once.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class ByProducts(TorchFunctionMode):
    """While it is entered, plain convolutions over two dimensions are products; all else is as it was."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and _plain(*args, **kwargs):
            return _conv2d(*args, **kwargs)
        return func(*args, **kwargs)


def _plain(
    input: torch.Tensor, weight: torch.Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> bool:  # fmt: skip
    return input.dim() == 4 and groups == 1 and not isinstance(padding, str)


def _conv2d(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> torch.Tensor:  # fmt: skip
    """Return `torch.conv2d` of (images, channels, height, width) by (channels, channels, height, width)."""
    (above, beside), strides, steps = (_pair(each) for each in (padding, stride, dilation))
    padded = functional.pad(input, (beside, beside, above, above)) if above or beside else input
    sides = [
        (length - step * (width - 1) - 1) // by + 1
        for length, width, by, step in zip(padded.shape[2:], weight.shape[2:], strides, steps, strict=True)
    ]
    # One image after the other in every row of the matrix: it is one product for all of a model's images. Not
    # `unfold`, which starts a kernel for each image.
    images = padded.transpose(0, 1)
    down, across = (
        [slice(place * step, place * step + (side - 1) * by + 1, by) for place in range(width)]
        for width, side, by, step in zip(weight.shape[2:], sides, strides, steps, strict=True)
    )
    patches = torch.stack([images[:, :, row, column] for row in down for column in across], 1)
    products = weight.flatten(1) @ patches.view(weight[0].numel(), -1)
    if bias is not None:
        products = products + bias.to(products.dtype)[:, None]
    # Contiguous, as torch's own: who flattens by `view` needs it.
    return products.view(len(weight), len(input), *sides).transpose(0, 1).contiguous()


def _pair(setting: Any) -> tuple[int, int]:
    both = tuple(setting) if isinstance(setting, Sequence) else (int(setting),)
    return both[0], both[-1]
