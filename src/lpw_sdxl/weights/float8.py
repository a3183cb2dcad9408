"""Tensors in fp8 (e4m3), each row with a scale of its own: `values * scales` is about the tensor.

A scale for a whole tensor would let one row's largest number decide how coarse all others become. A
row is one token of an activation, or one output of a weight.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of e4m3."""
SMALLEST_PEAK = 1e-12
"""Rows whose largest number is smaller are scaled as if it were this one, so that zeros stay."""


class Quantised(NamedTuple):
    """A tensor in fp8.

    Attributes:
        values: `[..., k]`, float8_e4m3fn.
        scales: float32, `[rows, 1]`; the rows are those of `values` with all but its last axis
            taken together.
    """

    values: Tensor
    scales: Tensor

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        return self.values.nbytes + self.scales.nbytes

    def to(self, device: torch.device) -> Quantised:
        """Return the same on a device; tensors that are there already are not copied."""
        return Quantised(self.values.to(device), self.scales.to(device))

    def restored(self) -> Tensor:
        """Return what the numbers stand for, float32."""
        scales = self.scales.view(*self.values.shape[:-1], 1)
        return self.values.float() * scales


def quantise_rows(tensor: Tensor) -> Quantised:
    """Round a tensor to fp8, each row with the scale that makes its largest number 448.

    Args:
        tensor: `[..., k]`, of any float dtype.
    """
    wide = tensor.float()
    peak = wide.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_PEAK)
    values = (wide * (LARGEST / peak)).clamp(-LARGEST, LARGEST).to(FLOAT8)
    return Quantised(values, (peak / LARGEST).reshape(-1, 1))
