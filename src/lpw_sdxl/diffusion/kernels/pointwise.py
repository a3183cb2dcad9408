"""Sums, gates and fp8 as Triton kernels: what needs no number of another row or token."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lpw_sdxl.diffusion.kernels.operations import Activation
from lpw_sdxl.weights.float8 import FLOAT8, LARGEST, SMALLEST_PEAK, Quantised

ADDED = 2048  # numbers of one block of a sum
GATED = (1024, 512)  # numbers of one block of a gate; the second where the first does not divide


def add_residual(states: Tensor, residual: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `states + residual + bias`, as in `Operations`."""
    states = states.contiguous(memory_format=torch.channels_last)
    residual = residual.contiguous(memory_format=torch.channels_last)
    result = torch.empty_like(states)
    count = states.numel()
    _add_residual[(triton.cdiv(count, ADDED),)](
        states, residual, states if bias is None else bias, result, count, states.shape[1],
        bias is not None, ADDED, num_warps=8,
    )  # fmt: skip
    return result


def gate(states: Tensor, *, quantises: bool) -> Activation:
    """Compute `value * gelu(gate)`, as in `Operations`."""
    states = states.contiguous()
    width = states.shape[-1] // 2
    tokens = states.numel() // (2 * width)
    shape = (*states.shape[:-1], width)
    if not quantises:
        result = torch.empty(shape, dtype=states.dtype, device=states.device)
        block = GATED[0] if width % GATED[0] == 0 else GATED[1]
        _gate[(tokens, triton.cdiv(width, block))](states, result, width, block, num_warps=4)
        return result
    values, scales = _empty_quantised(shape, states.device)
    _gate_quantised[(tokens,)](
        states, values, scales, width, LARGEST, SMALLEST_PEAK, triton.next_power_of_2(width),
        num_warps=8,
    )  # fmt: skip
    return Quantised(values, scales)


def quantise(states: Tensor) -> Quantised:
    """Round to fp8 with a scale for each token, as in `Operations`."""
    states = states.contiguous()
    channels = states.shape[-1]
    values, scales = _empty_quantised(tuple(states.shape), states.device)
    _quantise[(states.numel() // channels,)](
        states, values, scales, channels, LARGEST, SMALLEST_PEAK,
        triton.next_power_of_2(channels), num_warps=4,
    )  # fmt: skip
    return Quantised(values, scales)


def _empty_quantised(shape: tuple[int, ...], device: torch.device) -> Quantised:
    values = torch.empty(shape, dtype=FLOAT8, device=device)
    scales = torch.empty(values.numel() // shape[-1], 1, dtype=torch.float32, device=device)
    return Quantised(values, scales)


@triton.jit(do_not_specialize=["count"])
def _add_residual(
    states, residual, bias, result, count, channels, has_bias: tl.constexpr, block: tl.constexpr
):
    """Add a block of two channels-last tensors, and each number's own bias."""
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    is_inside = place < count
    values = tl.load(states + place, mask=is_inside, other=0.0).to(tl.float32)
    values += tl.load(residual + place, mask=is_inside, other=0.0).to(tl.float32)
    if has_bias:
        values += tl.load(bias + place % channels, mask=is_inside, other=0.0).to(tl.float32)
    tl.store(result + place, values.to(result.dtype.element_ty), mask=is_inside)


@triton.jit
def _gated(states, token, column, width, is_inside):
    """Return `value * gelu(gate)` of some columns of one token."""
    place = states + token * 2 * width + column
    value = tl.load(place, mask=is_inside, other=0.0).to(tl.float32)
    opening = tl.load(place + width, mask=is_inside, other=0.0).to(tl.float32)
    return value * (0.5 * opening * (1.0 + tl.erf(opening * 0.7071067811865476)))


@triton.jit
def _gate(states, result, width, block: tl.constexpr):
    """Gate a block of one token."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    is_inside = column < width
    values = _gated(states, token, column, width, is_inside)
    tl.store(result + token * width + column, values.to(result.dtype.element_ty), mask=is_inside)


@triton.jit
def _store_quantised(
    values, scales, result, token, column, width, is_inside,
    largest: tl.constexpr, smallest_peak: tl.constexpr,
):  # fmt: skip
    """Round one token to fp8, and note its scale; numbers outside must be 0."""
    peak = tl.maximum(tl.max(tl.abs(values)), smallest_peak)
    tl.store(scales + token, peak / largest)
    bounded = tl.minimum(tl.maximum(values * (largest / peak), -largest), largest)
    tl.store(result + token * width + column, bounded.to(result.dtype.element_ty), mask=is_inside)


@triton.jit
def _gate_quantised(
    states, result, scales, width,
    largest: tl.constexpr, smallest_peak: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Gate one token, and round it to fp8."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    is_inside = column < width
    values = _gated(states, token, column, width, is_inside)
    _store_quantised(
        values, scales, result, token, column, width, is_inside, largest, smallest_peak
    )


@triton.jit
def _quantise(
    states, result, scales, channels,
    largest: tl.constexpr, smallest_peak: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Round one token to fp8."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    is_inside = column < channels
    values = tl.load(states + token * channels + column, mask=is_inside, other=0.0).to(tl.float32)
    _store_quantised(
        values, scales, result, token, column, channels, is_inside, largest, smallest_peak
    )
