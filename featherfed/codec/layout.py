"""How a model's tensors lie in one flat float32 vector of coordinates.

A tensor of two or more dimensions is a matrix for the structured stages, as in Konečný et al. 2016: a linear weight of
shape (out, in) is an in × out matrix, a kernel of shape (out, in, kh, kw) an (in·kh·kw) × out one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor of a model; `shape` in torch's order, output dimension first."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(rows, columns) of its matrix form, in·kh·kw × out; a vector is one column."""
        if len(self.shape) < 2:
            return (self.size, 1)
        return (math.prod(self.shape[1:]), self.shape[0])


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of a model in the order in which they lie in the flat vector."""

    tensors: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        """Number of coordinates of the whole vector."""
        return sum(tensor.size for tensor in self.tensors)

    def slices(self) -> Iterator[tuple[Tensor, slice]]:
        """Yield each tensor with its place in the flat vector."""
        start = 0
        for tensor in self.tensors:
            yield tensor, slice(start, start + tensor.size)
            start += tensor.size
