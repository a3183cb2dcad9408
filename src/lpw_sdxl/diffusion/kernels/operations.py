"""The operations between a network's products, by name: a class that has them all can be chosen."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from lpw_sdxl.weights.float8 import Quantised

Activation = Tensor | Quantised
"""What goes into a product: numbers, or numbers in fp8 with a scale for each token."""


class NormalisedSum(NamedTuple):
    """A sum, and its layer norm.

    Attributes:
        total: the stream of residuals, `[rows, tokens, channels]`.
        normalised: like it, or that in fp8.
    """

    total: Tensor
    normalised: Activation


class Operations(Protocol):
    """The operations, computed in float32 and rounded once, to the dtype of their input.

    Weights are read in each call, so that they may be exchanged between calls. Pictures of
    features, `[rows, channels, h, w]`, come and go in channels-last layout.
    """

    def group_norm(
        self, states: Tensor, norm: nn.GroupNorm, *, has_silu: bool, shift: Tensor | None = None
    ) -> Tensor:
        """Compute `silu(group_norm(states + shift))`, or that without SiLU.

        Args:
            states: `[rows, channels, h, w]`.
            norm: the layer.
            has_silu: whether SiLU follows.
            shift: float32, `[rows, channels]`: a convolution's bias and the timestep's embedding.
        """
        ...

    def add_residual(self, states: Tensor, residual: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute `states + residual + bias`.

        Args:
            states: `[rows, channels, h, w]`.
            residual: like it.
            bias: `[channels]`.
        """
        ...

    def add_layer_norm(
        self, states: Tensor | None, residual: Tensor, norm: nn.LayerNorm, *, quantises: bool
    ) -> NormalisedSum:
        """Compute `states + residual` and its layer norm, of the sum as it is rounded.

        Args:
            states: `[rows, tokens, channels]`; None for nothing.
            residual: like it.
            norm: the layer.
            quantises: whether the norm is given in fp8.
        """
        ...

    def gate(self, states: Tensor, *, quantises: bool) -> Activation:
        """Compute `value * gelu(gate)`: `[rows, tokens, 2 * width]` to `[rows, tokens, width]`.

        Args:
            states: the values first, then the gates; GELU is the exact one, by `erf`.
            quantises: whether the result is given in fp8.
        """
        ...

    def quantise(self, states: Tensor) -> Quantised:
        """Round `[rows, tokens, channels]` to fp8 with a scale for each token."""
        ...
