"""Group norm and SiLU of channels-last features, as three Triton kernels.

The first takes the mean and the squared distances from it of 128 pixels of each channel, the second
joins those of a group (Chan, Golub and LeVeque 1979) into a scale and a shift for each channel, the
third applies them. Memory is read twice and written once. It knows nothing of networks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

PART_PIXELS = 128  # of one partial mean; fixed, for it is a part of the numerics
JOINED_PARTS = 64  # read at once where they are joined; likewise
BLOCK_CHANNELS = 64  # divides all widths of SDXL's UNet and VAE
APPLIED_PIXELS = 64  # of one block of the last kernel


def group_norm(
    states: Tensor, norm: nn.GroupNorm, *, has_silu: bool, shift: Tensor | None
) -> Tensor:
    """Compute `silu(group_norm(states + shift))`, or that without SiLU, as in `Operations`."""
    states = states.contiguous(memory_format=torch.channels_last)
    rows, channels, height, width = states.shape
    pixels, groups = height * width, norm.num_groups
    parts = triton.cdiv(pixels, PART_PIXELS)
    blocks = triton.cdiv(channels, BLOCK_CHANNELS)
    means, squares = _floats(states, 2, rows, parts, channels)
    factors, offsets = _floats(states, 2, rows, channels)
    _take_moments[(parts, blocks, rows)](
        states, means, squares, pixels, channels, parts, PART_PIXELS, BLOCK_CHANNELS, num_warps=4
    )
    _join_moments[(groups, rows)](
        means, squares, means if shift is None else shift, norm.weight, norm.bias,
        factors, offsets, pixels, channels, parts, norm.eps, channels // groups,
        shift is not None, PART_PIXELS, JOINED_PARTS,
        triton.next_power_of_2(channels // groups), num_warps=4,
    )  # fmt: skip
    result = torch.empty_like(states)
    _apply[(triton.cdiv(pixels, APPLIED_PIXELS), blocks, rows)](
        states, factors, offsets, result, pixels, channels, has_silu,
        APPLIED_PIXELS, BLOCK_CHANNELS, num_warps=4,
    )  # fmt: skip
    return result


def _floats(states: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=states.device)


# A number of pixels or parts must not make another kernel: all are compiled before the first call.
@triton.jit(do_not_specialize=["pixels", "parts"])
def _take_moments(
    states, means, squares, pixels, channels, parts,
    part_pixels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Take mean and sum of squared distances of one part of one row, for a block of channels."""
    part = tl.program_id(0)
    row = tl.program_id(2)
    pixel = part * part_pixels + tl.arange(0, part_pixels)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    is_inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    place = (row.to(tl.int64) * pixels + pixel[:, None]) * channels + channel[None, :]
    values = tl.load(states + place, mask=is_inside, other=0.0).to(tl.float32)
    count = tl.minimum(pixels - part * part_pixels, part_pixels).to(tl.float32)
    mean = tl.sum(values, 0) / count
    distances = tl.where(is_inside, values - mean[None, :], 0.0)
    to = (row.to(tl.int64) * parts + part) * channels + channel
    tl.store(means + to, mean, mask=channel < channels)
    tl.store(squares + to, tl.sum(distances * distances, 0), mask=channel < channels)


@triton.jit(do_not_specialize=["pixels", "parts", "eps", "width"])
def _join_moments(
    means, squares, shift, weight, bias, factors, offsets,
    pixels, channels, parts, eps, width,
    has_shift: tl.constexpr, part_pixels: tl.constexpr, joined: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Join the parts of one group of one row; `width` is its number of channels."""
    row = tl.program_id(1)
    inner = tl.arange(0, block)
    channel = tl.program_id(0) * width + inner
    is_inside = inner < width
    moved = tl.zeros([block], tl.float32)
    if has_shift:
        moved = tl.load(shift + row * channels + channel, mask=is_inside, other=0.0).to(tl.float32)
    total = tl.zeros([block], tl.float32)
    for first in range(0, parts, joined):
        part = first + tl.arange(0, joined)
        is_part = (part < parts)[:, None] & is_inside[None, :]
        count = tl.where(part < parts, tl.minimum(pixels - part * part_pixels, part_pixels), 0)
        place = (row.to(tl.int64) * parts + part[:, None]) * channels + channel[None, :]
        mean = tl.load(means + place, mask=is_part, other=0.0)
        total += tl.sum(mean * count.to(tl.float32)[:, None], 0)
    centre = tl.sum(tl.where(is_inside, total / pixels + moved, 0.0)) / width
    scattered = tl.zeros([block], tl.float32)
    for first in range(0, parts, joined):
        part = first + tl.arange(0, joined)
        is_part = (part < parts)[:, None] & is_inside[None, :]
        count = tl.where(part < parts, tl.minimum(pixels - part * part_pixels, part_pixels), 0)
        place = (row.to(tl.int64) * parts + part[:, None]) * channels + channel[None, :]
        mean = tl.load(means + place, mask=is_part, other=0.0)
        square = tl.load(squares + place, mask=is_part, other=0.0)
        distance = mean + moved[None, :] - centre
        spread = square + count.to(tl.float32)[:, None] * distance * distance
        scattered += tl.sum(tl.where(is_part, spread, 0.0), 0)
    deviation = tl.sqrt_rn(tl.sum(scattered) / (width * pixels).to(tl.float32) + eps)
    factor = tl.load(weight + channel, mask=is_inside, other=0.0).to(tl.float32) / deviation
    offset = tl.load(bias + channel, mask=is_inside, other=0.0).to(tl.float32)
    tl.store(factors + row * channels + channel, factor, mask=is_inside)
    tl.store(offsets + row * channels + channel, offset + (moved - centre) * factor, mask=is_inside)


@triton.jit(do_not_specialize=["pixels"])
def _apply(
    states, factors, offsets, result, pixels, channels,
    has_silu: tl.constexpr, block_pixels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Apply a row's scale and shift to a block of its pixels and channels, and SiLU."""
    pixel = tl.program_id(0) * block_pixels + tl.arange(0, block_pixels)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    row = tl.program_id(2)
    is_channel = channel < channels
    is_inside = (pixel < pixels)[:, None] & is_channel[None, :]
    place = (row.to(tl.int64) * pixels + pixel[:, None]) * channels + channel[None, :]
    values = tl.load(states + place, mask=is_inside, other=0.0).to(tl.float32)
    factor = tl.load(factors + row * channels + channel, mask=is_channel, other=0.0)
    offset = tl.load(offsets + row * channels + channel, mask=is_channel, other=0.0)
    values = values * factor[None, :] + offset[None, :]
    if has_silu:
        values = values * tl.sigmoid(values)
    tl.store(result + place, values.to(result.dtype.element_ty), mask=is_inside)
