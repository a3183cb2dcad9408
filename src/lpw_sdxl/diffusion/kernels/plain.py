"""The operations in plain torch: what each kernel is held to, on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpw_sdxl.diffusion.kernels.operations import Activation, NormalisedSum
from lpw_sdxl.weights.float8 import Quantised, quantise_rows


class PlainOperations:
    """`Operations` in torch's own functions."""

    def group_norm(
        self, states: Tensor, norm: nn.GroupNorm, *, has_silu: bool, shift: Tensor | None = None
    ) -> Tensor:
        """Compute `silu(group_norm(states + shift))`, or that without SiLU."""
        # Torch cuts its sums over channels-last memory by its threads and the rows of a call; those
        # of a group that lies in one stretch it does not cut.
        wide = _widen(states).contiguous()
        if shift is not None:
            wide = wide + shift[:, :, None, None]
        weight, bias = _widen(norm.weight), _widen(norm.bias)
        normed = F.group_norm(wide, norm.num_groups, weight, bias, norm.eps)
        result = F.silu(normed) if has_silu else normed
        return result.to(states.dtype).contiguous(memory_format=torch.channels_last)

    def add_residual(self, states: Tensor, residual: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute `states + residual + bias`."""
        total = _widen(states) + _widen(residual)
        if bias is not None:
            total = total + _widen(bias)[:, None, None]
        return total.to(states.dtype).contiguous(memory_format=torch.channels_last)

    def add_layer_norm(
        self, states: Tensor | None, residual: Tensor, norm: nn.LayerNorm, *, quantises: bool
    ) -> NormalisedSum:
        """Compute `states + residual` and its layer norm."""
        total = residual if states is None else residual + states
        weight, bias = _widen(norm.weight), _widen(norm.bias)
        normed = F.layer_norm(_widen(total), norm.normalized_shape, weight, bias, norm.eps)
        return NormalisedSum(total, quantise_rows(normed) if quantises else normed.to(total.dtype))

    def gate(self, states: Tensor, *, quantises: bool) -> Activation:
        """Compute `value * gelu(gate)`."""
        value, gate = _widen(states).chunk(2, dim=-1)
        gated = value * F.gelu(gate)
        return quantise_rows(gated) if quantises else gated.to(states.dtype)

    def quantise(self, states: Tensor) -> Quantised:
        """Round to fp8 with a scale for each token."""
        return quantise_rows(states)


def _widen(states: Tensor) -> Tensor:
    """Return numbers in float32, or as they are if they are more precise."""
    return states.to(torch.promote_types(states.dtype, torch.float32))
