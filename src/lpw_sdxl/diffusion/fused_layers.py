"""Questions to layers that the fused networks ask: may they be computed past their own forward?"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def has_own_forward(*layers: nn.Module | None) -> bool:
    """Return whether any layer computes in a way of its own: its rows have different LoRAs.

    Args:
        layers: with weights of their own, not what contains such layers; None is none.
    """
    return any(layer is not None and "forward" in vars(layer) for layer in layers)


def join_weights(layers: tuple[nn.Linear, ...]) -> None:
    """Lay the weights of layers with one input into one stretch of memory, in their order."""
    parts = [layer.weight for layer in layers]
    joined = torch.cat([part.data for part in parts])
    split = joined.split([len(part) for part in parts])
    for part, values in zip(parts, split, strict=True):
        part.data = values


def view_joined(parts: tuple[Tensor, ...]) -> Tensor | None:
    """View tensors that lie one after the other as one, `[sum of rows, k]`; None if they don't.

    A LoRA's weights lie elsewhere, so that layers of which one has a LoRA are no longer joined.

    Args:
        parts: contiguous `[rows, k]`.
    """
    first = parts[0]
    storage = first.untyped_storage().data_ptr()
    offset = first.storage_offset()
    for part in parts:
        # Tensors of their own may lie side by side by chance, and be freed one by one.
        is_here = part.untyped_storage().data_ptr() == storage and part.storage_offset() == offset
        if not (is_here and part.is_contiguous() and part.dtype == first.dtype):
            return None
        offset += part.numel()
    return first.as_strided((sum(map(len, parts)), first.shape[1]), (first.shape[1], 1))


def widen(tensor: Tensor) -> Tensor:
    """Return numbers in float32, or as they are if they are more precise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def convolve(convolution: nn.Conv2d, states: Tensor) -> Tensor:
    """Compute a convolution without its bias, which is added elsewhere."""
    return nn.functional.conv2d(
        states, convolution.weight, None, convolution.stride, convolution.padding
    )
