"""Inputs as the written and the compiled passes have them: images with their channels last in memory."""

import torch


def channels_last(inputs: torch.Tensor) -> torch.Tensor:
    """Return inputs, (examples, features) or (examples, channels, height, width), with the channels last in memory."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def rows_of(inputs: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return those whose numbers are `chosen`, int64, copied, with their channels last again."""
    if inputs.dim() == 4:
        return inputs.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)
    return inputs.index_select(0, chosen)
