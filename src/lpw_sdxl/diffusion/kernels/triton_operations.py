"""The operations as Triton's kernels. It imports Triton, so only what has chosen it imports it."""

from __future__ import annotations

from torch import Tensor, nn

from lpw_sdxl.diffusion.kernels import group_norm, pointwise, token_norm
from lpw_sdxl.diffusion.kernels.operations import Activation, NormalisedSum
from lpw_sdxl.weights.float8 import Quantised


class TritonOperations:
    """`Operations` on a CUDA device; each kernel is compiled when it is first used."""

    def group_norm(
        self, states: Tensor, norm: nn.GroupNorm, *, has_silu: bool, shift: Tensor | None = None
    ) -> Tensor:
        """Compute `silu(group_norm(states + shift))`, or that without SiLU."""
        return group_norm.group_norm(states, norm, has_silu=has_silu, shift=shift)

    def add_residual(self, states: Tensor, residual: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute `states + residual + bias`."""
        return pointwise.add_residual(states, residual, bias)

    def add_layer_norm(
        self, states: Tensor | None, residual: Tensor, norm: nn.LayerNorm, *, quantises: bool
    ) -> NormalisedSum:
        """Compute `states + residual` and its layer norm."""
        return token_norm.add_layer_norm(states, residual, norm, quantises=quantises)

    def gate(self, states: Tensor, *, quantises: bool) -> Activation:
        """Compute `value * gelu(gate)`."""
        return pointwise.gate(states, quantises=quantises)

    def quantise(self, states: Tensor) -> Quantised:
        """Round to fp8 with a scale for each token."""
        return pointwise.quantise(states)
