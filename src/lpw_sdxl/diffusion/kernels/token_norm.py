"""A sum and its layer norm in one pass, as a Triton kernel; in fp8 too, with a scale for a token.

One program has one token, so that its sums do not depend on the others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from lpw_sdxl.diffusion.kernels.operations import NormalisedSum
from lpw_sdxl.weights.float8 import FLOAT8, LARGEST, SMALLEST_PEAK, Quantised


def add_layer_norm(
    states: Tensor | None, residual: Tensor, norm: nn.LayerNorm, *, quantises: bool
) -> NormalisedSum:
    """Compute `states + residual` and its layer norm, as in `Operations`."""
    residual = residual.contiguous()
    added = residual if states is None else states.contiguous()
    channels = residual.shape[-1]
    tokens = residual.numel() // channels
    total = residual if states is None else torch.empty_like(residual)
    normed = torch.empty_like(residual, dtype=FLOAT8 if quantises else residual.dtype)
    scales = torch.empty(tokens, 1, dtype=torch.float32, device=residual.device)
    _add_layer_norm[(tokens,)](
        added, residual, norm.weight, norm.bias, total, normed, scales, norm.eps, channels,
        states is not None, quantises, LARGEST, SMALLEST_PEAK,
        triton.next_power_of_2(channels), num_warps=4,
    )  # fmt: skip
    return NormalisedSum(total, Quantised(normed, scales) if quantises else normed)


@triton.jit(do_not_specialize=["eps"])
def _add_layer_norm(
    states, residual, weight, bias, total, normed, scales, eps, channels,
    has_states: tl.constexpr, quantises: tl.constexpr,
    largest: tl.constexpr, smallest_peak: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Add and normalise one token."""
    token = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, block)
    is_inside = channel < channels
    place = token * channels + channel
    values = tl.load(residual + place, mask=is_inside, other=0.0).to(tl.float32)
    if has_states:
        values += tl.load(states + place, mask=is_inside, other=0.0).to(tl.float32)
        rounded = values.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=is_inside)
        values = rounded.to(tl.float32)  # what goes on is what is normalised
    mean = tl.sum(values) / channels
    distances = tl.where(is_inside, values - mean, 0.0)
    deviation = tl.sqrt_rn(tl.sum(distances * distances) / channels + eps)
    factor = tl.load(weight + channel, mask=is_inside, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=is_inside, other=0.0).to(tl.float32)
    result = distances / deviation * factor + offset
    if quantises:
        peak = tl.maximum(tl.max(tl.where(is_inside, tl.abs(result), 0.0)), smallest_peak)
        tl.store(scales + token, peak / largest)
        result = tl.minimum(tl.maximum(result * (largest / peak), -largest), largest)
    tl.store(normed + place, result.to(normed.dtype.element_ty), mask=is_inside)
