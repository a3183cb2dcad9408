"""Products of a UNet's transformers in fp8: which layers, their weights, and the product itself.

A layer's fp8 weight lies beside its own one, as its attribute `quantised`, which LoRAs exchange
with it: lora/merging.py makes it anew for each set. A key by the weight's address would not do, for
a freed set's address comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from lpw_sdxl.diffusion.attention import SELF_ATTENTION
from lpw_sdxl.weights.float8 import Quantised, quantise_rows

# Of a transformer's block. Keys and values of prompts are made once a job, and stay as they are.
LAYERS = (
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out.0",
    "attn2.to_q",
    "attn2.to_out.0",
    "ff.net.0.proj",
    "ff.net.2",
)
SMALLEST_MULTIPLE = 16
"""Of a product's inner and outer width; torch's product in fp8 takes no other."""


def quantise_unet(unet: nn.Module) -> None:
    """Put beside the weight of every layer of `LAYERS` the same in fp8.

    Args:
        unet: where it stays; query, key and value of a self-attention get one stretch of memory.
    """
    layers = dict(_layers(unet))
    for layer in layers.values():
        _put(layer, quantise_rows(layer.weight.data))
    for path in layers:
        if path.endswith(f"{SELF_ATTENTION}.to_q"):
            _join([layers[path[:-1] + part] for part in "qkv"])


def count_quantised_bytes(unet: nn.Module) -> int:
    """Count the bytes that `quantise_unet` adds: a byte a number, and a scale an output."""
    return sum(layer.weight.numel() + 4 * len(layer.weight) for _, layer in _layers(unet))


def find_width_obstacle(unet: nn.Module) -> str | None:
    """Return which layer has a width that fp8 products can't have, None if none has."""
    for path, layer in _layers(unet):
        if any(width % SMALLEST_MULTIPLE for width in layer.weight.shape):
            rows, columns = layer.weight.shape
            return f"{path} has {columns} inputs and {rows} outputs, not multiples of 16"
    return None


def quantised_weight(layer: nn.Module) -> Quantised:
    """Return the weight in fp8 of a layer that has one."""
    return cast(Quantised, layer.quantised)


class Float8Products:
    """Products in fp8, with a scale for each token and one for each output.

    Args:
        dtype: of results.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._made_in = dtype  # by torch's product; bfloat16 where it has no other

    def multiply(self, activation: Quantised, weight: Quantised, bias: Tensor | None) -> Tensor:
        """Compute `activation @ weight.T + bias`.

        Args:
            activation: `[..., k]`.
            weight: `[n, k]`.
            bias: `[n]`.

        Returns:
            `[..., n]`, in this object's dtype.
        """
        flat = activation.values.reshape(-1, activation.values.shape[-1])
        product = torch._scaled_mm(
            flat,
            weight.values.t(),
            scale_a=activation.scales,
            scale_b=weight.scales.t(),
            bias=None if bias is None else bias.to(self._made_in),
            out_dtype=self._made_in,
            use_fast_accum=flat.is_cuda,
        )
        return product.view(*activation.values.shape[:-1], -1).to(self._dtype)

    def choose_result(self, device: torch.device) -> None:
        """Choose what torch's product makes on a device: this dtype, or bfloat16 before it.

        Raises:
            RuntimeError: if there is no product in fp8 there.
        """
        one = quantise_rows(torch.ones(SMALLEST_MULTIPLE, SMALLEST_MULTIPLE, device=device))
        for made_in in (self._dtype, torch.bfloat16):
            self._made_in = made_in
            try:
                self.multiply(one, one, None)
            except RuntimeError:
                if made_in == torch.bfloat16:
                    raise
            else:
                return


def _layers(unet: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for path, layer in unet.named_modules():
        if isinstance(layer, nn.Linear) and path.endswith(LAYERS):
            yield path, layer


def _join(layers: list[nn.Linear]) -> None:
    """Lay the fp8 weights of layers into one stretch of memory, in their order."""
    weights = [quantised_weight(layer) for layer in layers]
    rows = [len(weight.values) for weight in weights]
    # Torch can't concatenate fp8 on every device; its bytes it can.
    joined = torch.cat([weight.values.view(torch.uint8) for weight in weights])
    values = joined.view(weights[0].values.dtype).split(rows)
    scales = torch.cat([weight.scales for weight in weights]).split(rows)
    for layer, *parts in zip(layers, values, scales, strict=True):
        _put(layer, Quantised(*parts))


def _put(layer: nn.Module, weight: Quantised) -> None:
    vars(layer)["quantised"] = weight  # no parameter, so that nothing else moves or saves it
