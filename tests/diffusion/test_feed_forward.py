"""Gated layers computed in two halves: the same numbers as Diffusers', with LoRAs too."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.activations import GEGLU

from lpw_sdxl.diffusion.feed_forward import split_gates


@torch.inference_mode()
def test_every_gated_layer_gives_what_diffusers_gives(unet: Any) -> None:
    layers = [module for module in unet.modules() if isinstance(module, GEGLU)]
    assert layers
    given = [torch.randn(2, 5, layer.proj.in_features) for layer in layers]
    expected = [layer(states) for layer, states in zip(layers, given, strict=True)]
    split_gates(unet)
    for layer, states, values in zip(layers, given, expected, strict=True):
        assert "forward" in vars(layer)
        torch.testing.assert_close(layer(states), values, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_layer_whose_weights_are_exchanged_uses_the_new_ones(unet: Any) -> None:
    split_gates(unet)
    layer = next(module for module in unet.modules() if isinstance(module, GEGLU))
    states = torch.randn(2, 5, layer.proj.in_features)
    before = layer(states)
    layer.proj.weight.data = layer.proj.weight.data * 2
    stock = GEGLU.forward(layer, states)
    torch.testing.assert_close(layer(states), stock, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(layer(states), before)


@torch.inference_mode()
def test_a_layer_that_is_divided_among_loras_is_called_as_a_whole(unet: Any) -> None:
    split_gates(unet)
    layer = next(module for module in unet.modules() if isinstance(module, GEGLU))
    states = torch.randn(2, 5, layer.proj.in_features)
    width = layer.proj.out_features
    layer.proj.forward = lambda _: torch.ones(2, 5, width)
    expected = torch.nn.functional.gelu(torch.ones(2, 5, width // 2))
    torch.testing.assert_close(layer(states), expected)
