"""Forward and backward passes of chains of common layers, written out: nothing passes through autograd.

At ten images a step a small model costs more around its arithmetic than in it: autograd records, allocates, zeroes a
gradient, accumulates into it, and the step then reads it again. Here each layer's gradient goes where it is wanted:
into the flat gradient, or, where SGD is plain, straight into the flat weights by one fused multiply-add,

    W ← W − η gᵀx        (out, in) from g, (batch, out), and x, (batch, in)

so that the weights pass through memory once a step. Images lie as batch × height × width × channels, since torch pools
over contiguous planes ten times slower. All sums have a fixed order: the same bits on one kind of machine.

With logits z of n images and one-hot labels t, the loss is −(1/n) Σ t · log softmax(z), and its gradient by z is
(softmax(z) − t) / n; from there the layers are walked backwards.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import nn

from featherfed.learning.flat import FlatModel

OUT_OF_CACHE = 1 << 20
"""Weights from which MKL's product of few rows takes twice as long as the transposed one."""

_pool: Callable[..., tuple[torch.Tensor, torch.Tensor]] = torch.ops.aten.max_pool2d_with_indices.default
_pool_backward: Callable[..., torch.Tensor] = torch.ops.aten.max_pool2d_with_indices_backward.default
_relu_backward: Callable[..., torch.Tensor] = torch.ops.aten.threshold_backward.default
_convolution_backward: Callable[..., tuple[torch.Tensor, ...]] = torch.ops.aten.convolution_backward.default


class Layer(Protocol):
    """One step of the walk: `forward` keeps what `backward` will need."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output; may write over `x`, which nothing else needs."""

    def backward(self, g: torch.Tensor, rate: float | None, *, onward: bool) -> torch.Tensor:
        """Return the gradient by the input, given that by the output; without `onward` nobody wants it.

        The gradient by the parameters overwrites theirs where `rate` is None; else they step by −rate times it.
        """


def _views(parameter: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a parameter's values, and where its gradient goes: nowhere (an empty tensor) where it is frozen."""
    assert parameter is not None, "our layers have a bias"
    return parameter.detach(), torch.empty(0) if parameter.grad is None else parameter.grad


def _learned(layer: nn.Module) -> bool:
    """Whether a layer has parameters that are learned."""
    return any(parameter.requires_grad for parameter in layer.parameters())


class _Linear:
    def __init__(self, module: nn.Linear) -> None:
        self._learned = _learned(module)
        self._weight, self._by_weight = _views(module.weight)
        self._bias, self._by_bias = _views(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._x = x
        if self._weight.numel() > OUT_OF_CACHE:
            return torch.mm(self._weight, x.t()).t() + self._bias
        return torch.addmm(self._bias, x, self._weight.t())

    def backward(self, g: torch.Tensor, rate: float | None, *, onward: bool) -> torch.Tensor:
        by_input = torch.mm(g, self._weight) if onward else g
        if not self._learned:
            return by_input
        if rate is None:
            torch.mm(g.t(), self._x, out=self._by_weight)
            torch.sum(g, 0, out=self._by_bias)
        else:
            self._weight.addmm_(g.t(), self._x, alpha=-rate)
            self._bias.sub_(g.sum(0), alpha=rate)
        return by_input


class _Convolution:
    def __init__(self, module: nn.Conv2d) -> None:
        self._learned = _learned(module)
        self._weight, self._by_weight = _views(module.weight)
        self._bias, self._by_bias = _views(module.bias)
        self._stride, self._padding = module.stride, [int(side) for side in module.padding]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._x = x
        return torch.conv2d(x, self._weight, self._bias, self._stride, self._padding)

    def backward(self, g: torch.Tensor, rate: float | None, *, onward: bool) -> torch.Tensor:
        by_input, by_weight, by_bias = _convolution_backward(
            g, self._x, self._weight, self._bias.shape, self._stride, self._padding, [1, 1], False, [0, 0], 1,
            [onward, self._learned, self._learned],
        )  # fmt: skip
        if not self._learned:
            return by_input
        if rate is None:
            self._by_weight.copy_(by_weight)
            self._by_bias.copy_(by_bias)
        else:
            self._weight.sub_(by_weight, alpha=rate)
            self._bias.sub_(by_bias, alpha=rate)
        return by_input if onward else g


class _Pool:
    def __init__(self, module: nn.MaxPool2d) -> None:
        self._window = [module.kernel_size] * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled, self._chosen = _pool(x, self._window)
        self._x = x
        return pooled

    def backward(self, g: torch.Tensor, rate: float | None, *, onward: bool) -> torch.Tensor:
        return _pool_backward(g, self._x, self._window, [], [0, 0], [1, 1], False, self._chosen)


class _ReLU:
    def __init__(self, module: nn.ReLU) -> None:
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._y = x.clamp_min_(0)
        return self._y

    def backward(self, g: torch.Tensor, rate: float | None, *, onward: bool) -> torch.Tensor:
        return _relu_backward(g, self._y, 0)


class _Flatten:
    def __init__(self, module: nn.Flatten) -> None:
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._shape = x.shape
        return x.flatten(1)

    def backward(self, g: torch.Tensor, rate: float | None, *, onward: bool) -> torch.Tensor:
        return g.view(self._shape).contiguous(memory_format=torch.channels_last)


_LAYERS: Mapping[type[nn.Module], Callable[..., Layer]] = {
    nn.Linear: _Linear,
    nn.Conv2d: _Convolution,
    nn.MaxPool2d: _Pool,
    nn.ReLU: _ReLU,
    nn.Flatten: _Flatten,
}


def fits(module: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether a model is a chain of these layers, as they are written here, that ends in logits.

    `inputs` is (examples, channels, height, width) for a chain that begins with images and flattens them once, or
    (examples, features) for one of linear layers alone; float32. Layers may be frozen as a whole; hooks and
    shared layers do not fit.
    """
    if type(module) is not nn.Sequential and type(module).forward is not nn.Sequential.forward:
        return False
    layers = list(module._modules.values())
    parameters = [parameter for layer in layers if layer is not None for parameter in layer.parameters()]
    if len({id(layer) for layer in layers}) < len(layers) or len({id(each) for each in parameters}) < len(parameters):
        return False
    if not all(layer is not None and _plain(layer) for layer in (*layers, module)):
        return False
    if inputs.dtype != torch.float32:
        return False
    kinds = [type(layer) for layer in layers]
    if not kinds or kinds[-1] is not nn.Linear or any(kind not in _LAYERS for kind in kinds):
        return False
    flat = kinds.index(nn.Flatten) if nn.Flatten in kinds else -1
    images, vectors = kinds[: flat + 1], kinds[flat + 1 :]
    return (
        inputs.dim() == (4 if flat >= 0 else 2)
        and nn.Linear not in images
        and all(kind in (nn.Linear, nn.ReLU) for kind in vectors)
    )


def _plain(layer: nn.Module) -> bool:
    """Whether a layer does just what its class is named for."""
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return False
    halved = isinstance(layer, nn.Linear | nn.Conv2d) and (
        layer.bias is None or layer.weight.requires_grad != layer.bias.requires_grad
    )
    if halved:
        return False
    if isinstance(layer, nn.Conv2d):
        usual = layer.dilation == (1, 1) and layer.groups == 1 and layer.padding_mode == "zeros"
        return usual and not isinstance(layer.padding, str)
    if isinstance(layer, nn.MaxPool2d):
        window = layer.kernel_size
        usual = (layer.stride, layer.padding, layer.dilation) == (window, 0, 1) and isinstance(window, int)
        return usual and not (layer.ceil_mode or layer.return_indices)
    if isinstance(layer, nn.Flatten):
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return True


class Backprop:
    """The passes of one model, a sequence of the layers above whose last output are logits."""

    def __init__(self, model: FlatModel) -> None:
        modules = list(model.module.children())
        self._layers = [_LAYERS[type(module)](module) for module in modules]
        # Nobody asks for the gradient by the images, or by what frozen layers make of them.
        self._first = next(at for at, module in enumerate(modules) if _learned(module))

    def gradient(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Write the gradient of a batch's mean loss to the model's `gradient`; return the loss, a scalar.

        `images` is (batch, channels, height, width), channels last in memory, or (batch, features); `labels` is
        one-hot, (batch, classes).
        """
        return self._walk(images, labels, None)

    def descend(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> torch.Tensor:
        """Step the weights by −rate times that gradient, without ever having it in memory; return the loss."""
        return self._walk(images, labels, rate)

    def _walk(self, images: torch.Tensor, labels: torch.Tensor, rate: float | None) -> torch.Tensor:
        x = images
        for layer in self._layers:
            x = layer.forward(x)
        logs = torch.log_softmax(x, 1)
        loss = torch.dot(logs.view(-1), labels.view(-1)).div_(-len(labels))
        g = logs.exp_().sub_(labels).div_(len(labels))
        for at in range(len(self._layers) - 1, self._first - 1, -1):
            g = self._layers[at].backward(g, rate, onward=at > self._first)
        return loss
