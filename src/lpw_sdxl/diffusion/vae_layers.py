"""Two kinds of the VAE's layers, made faster on a CUDA device for one image in float32.

Torch's group norm computes each of its 32 groups on one of a GPU's more than 100 multiprocessors,
and its attention computes in more precision than the convolutions beside it. A general reduction
uses the whole device, and products in TF32, which the convolutions use too, its matrix units. A
decode of 1024 x 1024 takes an H200 59 ms instead of 115, of which the norms save 45
(benchmarks/results/gpu_vae.json). The encoder has the same layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

MAX_SCORES = 1 << 26
"""Scores of attention computed at once, at most: 0.25 GiB, and as much for their softmax."""


def install_fast_layers(vae: Any) -> None:
    """Replace how a VAE computes its group norms and its attention; no weight changes.

    Args:
        vae: Diffusers' AutoencoderKL. Inputs that are not float32 on a CUDA device are computed by
            torch's own functions, as before.
    """
    for half in (vae.encoder, vae.decoder):
        for module in half.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = partial(_normalise, module)  # type: ignore[method-assign]
        for attention in half.mid_block.attentions:
            if attention is not None:
                attention.set_processor(SpatialAttention())


def is_slow_in_torch(states: torch.Tensor) -> bool:
    """Return whether torch's own functions are slow for these states."""
    return states.is_cuda and states.dtype == torch.float32


def _normalise(norm: torch.nn.GroupNorm, states: torch.Tensor) -> torch.Tensor:
    arguments = (norm.num_groups, norm.weight, norm.bias, norm.eps)
    if is_slow_in_torch(states):
        return group_norm(states, *arguments)
    return F.group_norm(states, *arguments)


def group_norm(
    states: torch.Tensor, groups: int, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """Compute torch's `group_norm` by a general reduction.

    Args:
        states: `[rows, channels, ...]`.
        groups: of channels.
        weight: `[channels]`.
        bias: `[channels]`.
        eps: added to the variance.
    """
    grouped = states.unflatten(1, (groups, -1))
    inner = tuple(range(2, grouped.ndim))
    variance, mean = torch.var_mean(grouped, dim=inner, correction=0)  # [rows, groups]
    scale = (variance + eps).rsqrt()[..., None] * weight.view(groups, -1)
    shift = bias.view(groups, -1) - mean[..., None] * scale
    shape = (*states.shape[:2], *[1] * (states.ndim - 2))
    return torch.addcmul(shift.reshape(shape), states, scale.reshape(shape))


class SpatialAttention:
    """A Diffusers attention processor for the VAE's pixels among themselves: one head."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        temb: None = None,  # noqa: ARG002 - Diffusers passes it, and a VAE has no timestep
        **_: Any,
    ) -> torch.Tensor:
        """Compute attention within `hidden_states`, `[rows, channels, h, w]`."""
        states = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)
        query, key, value = (project(states) for project in (attn.to_q, attn.to_k, attn.to_v))
        if is_slow_in_torch(states):
            attended = attend_in_parts(query, key, value)
        else:
            query, key, value = (one.unsqueeze(1) for one in (query, key, value))
            attended = F.scaled_dot_product_attention(query, key, value).squeeze(1)
        out = attn.to_out[0](attended).transpose(1, 2).reshape(hidden_states.shape)
        return (out + hidden_states) / attn.rescale_output_factor


def attend_in_parts(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, max_scores: int = MAX_SCORES
) -> torch.Tensor:
    """Compute attention with plain products, a part of the queries at a time.

    Args:
        query: `[rows, n, channels]`.
        key: like it.
        value: like it.
        max_scores: computed at once, which bounds the memory.
    """
    rows, tokens, channels = key.shape
    scaled, across = query * channels**-0.5, key.transpose(1, 2)
    parts = scaled.split(max(1, max_scores // (rows * tokens)), dim=1)
    with _tf32():
        attended = [torch.softmax(part @ across, dim=-1) @ value for part in parts]
    return torch.cat(attended, dim=1)


@contextmanager
def _tf32() -> Iterator[None]:
    """Compute products of float32 on a CUDA device in TF32, as convolutions are."""
    switch = torch.backends.cuda.matmul
    if switch.allow_tf32:
        yield
        return
    before = switch.fp32_precision
    switch.allow_tf32 = True
    try:
        yield
    finally:
        switch.allow_tf32 = False
        switch.fp32_precision = before  # "none" at first; the line above makes it "ieee"
