"""How training images are moved about: by whole pixels (`shift`), and turned, scaled and sheared (`warp`).

Both are made for all images of a phone at once, by torch alone: torchvision would cost each phone 170 MB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featherfed.training_settings import Value

if TYPE_CHECKING:
    import torch

    from featherfed.problem import Change

DEGREES, SCALE, SHEAR = 12.0, 0.1, 0.1
"""The most that an image is turned, scaled and sheared by at `warp` 1."""


def moves(settings: Mapping[str, Value]) -> "Change | None":
    """Return what the settings `shift`, `warp` and `warp_epochs` make of a phone's images; None where they stay."""
    strength = float(settings["warp"])
    return Warp(strength, int(settings["warp_epochs"]), shifted(settings)) if strength else shifted(settings)


def shifted(settings: Mapping[str, Value]) -> "Change | None":
    """Return what moves each image by up to `shift` pixels; at the edges comes in the darkest value that there is."""
    shift = int(settings["shift"])
    if not shift:
        return None

    def move(inputs: "torch.Tensor", generator: np.random.Generator) -> "torch.Tensor":
        import torch
        from torch.nn.functional import pad

        down, right = torch.from_numpy(generator.integers(0, 2 * shift + 1, (2, len(inputs)))).to(inputs.device)
        images = inputs.permute(0, 2, 3, 1)  # (examples, height, width, channels)
        _, height, width, _ = images.shape
        framed = pad(images, (0, 0, shift, shift, shift, shift), value=float(images.min()))
        places = framed.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)
        return places[torch.arange(len(images), device=inputs.device), down, right].permute(0, 3, 1, 2)

    return move


@dataclass(frozen=True, slots=True)
class Warp:
    """Shifts images, turns, scales and shears them about their middle, and leaves them so for some `epochs`.

    With angle θ, scale z and shear h of an image, drawn evenly from ±12° s, 1 ± 0.1 s and ±0.1 s, the pixel that is
    (x, y) from the middle becomes the image's value at

        1/z · (cos θ · (x + h y) − sin θ · y,  sin θ · (x + h y) + cos θ · y)

    from the middle: of the four pixels around, by their nearness (bilinear); outside lies the darkest value there is.
    """

    strength: float
    epochs: int
    shift: "Change | None" = None

    def __call__(self, inputs: "torch.Tensor", generator: np.random.Generator) -> "torch.Tensor":
        """Return (examples, channels, height, width) images, their channels last in memory."""
        import torch
        from torch.nn.functional import affine_grid, grid_sample

        shifted = inputs if self.shift is None else self.shift(inputs, generator)
        assert isinstance(shifted, torch.Tensor), "images are one tensor"
        drawn = 2 * generator.random((3, len(shifted)), np.float32) - 1
        darkest = shifted.min()
        _, _, height, width = shifted.shape
        matrices = torch.from_numpy(self._matrices(drawn, width / height)).to(shifted.device)
        grid = affine_grid(matrices, list(shifted.shape), align_corners=False)
        # Contiguous planes: torch samples those several times faster.
        planes = (shifted - darkest).contiguous()
        warped = grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + darkest
        return warped.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)

    def _matrices(self, drawn: npt.NDArray[np.float32], aspect: float) -> npt.NDArray[np.float32]:
        """Return the maps from places in the result to places in the image, (examples, 2, 3), for draws in ±1.

        torch counts both from −1 to 1 across the image, so that with other sides than equal ones x is longer than y.
        """
        angle, scale, shear = (self.strength * drawn.astype(np.float64).T * (np.radians(DEGREES), SCALE, SHEAR)).T
        cos, sin, zoom = np.cos(angle), np.sin(angle), 1 / (1 + scale)
        matrices = np.zeros((drawn.shape[1], 2, 3))
        matrices[:, 0, 0], matrices[:, 0, 1] = zoom * cos, zoom * (cos * shear - sin) / aspect
        matrices[:, 1, 0], matrices[:, 1, 1] = zoom * sin * aspect, zoom * (sin * shear + cos)
        return matrices.astype(np.float32)
