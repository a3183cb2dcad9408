"""The UNet's gated feed-forward layers (GEGLU), computed as two products of half the width.

Diffusers multiplies one wide product's first half by the GELU of its second. Both halves are
strided, which torch's elementwise kernels read at a third of the memory's speed: 42 of 288 ms of a
UNet call of 16 rows of 1024 x 1024 on an H100 (benchmarks/results/gpu_kernels.json). Two products
give the same numbers in contiguous tensors.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU


def split_gates(unet: Any) -> None:
    """Make every gated layer of a UNet compute value and gate apart; no weight changes.

    Args:
        unet: Diffusers' UNet2DConditionModel.
    """
    for module in unet.modules():
        if isinstance(module, GEGLU):
            module.forward = partial(apply_gate, module.proj)


def apply_gate(projection: torch.nn.Linear, states: torch.Tensor) -> torch.Tensor:
    """Compute `value * gelu(gate)`: `[..., channels]` to `[..., width]`.

    Args:
        projection: to value and gate, `[2 * width, channels]`, the value first.
        states: the layer's input.
    """
    if "forward" in vars(projection):  # its rows have different LoRAs: see lora/adapters.py
        value, gate = projection(states).chunk(2, dim=-1)
        return value * F.gelu(gate)
    value_weight, gate_weight = projection.weight.chunk(2)
    value_bias, gate_bias = projection.bias.chunk(2)
    gate = F.gelu(F.linear(states, gate_weight, gate_bias))
    return F.linear(states, value_weight, value_bias).mul_(gate)
