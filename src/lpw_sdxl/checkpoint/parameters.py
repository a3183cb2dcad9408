"""The name and shape of every parameter of the four networks, from their sizes; pure, no torch.

The names are those of Diffusers' and Transformers' modules, whose own lists (`skeleton.py`) need
torch; tests compare both. So a header is judged before anything heavy is imported, and a download
before its weights come. Shapes have a convolution's or matrix's outputs first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from lpw_sdxl.checkpoint.architecture import (
    LATENT_CHANNELS,
    LAYERS_PER_LEVEL,
    Architecture,
    TextEncoderSizes,
    UNetSizes,
    VaeSizes,
)
from lpw_sdxl.checkpoint.keys import Shape
from lpw_sdxl.weights.component import Component

Parameter = tuple[str, Shape]

_COLOURS = 3
_TIME_FACTOR = 4
"""Width of the embedded timestep, in widths of the UNet's finest level."""
_MLP_FACTOR = 4
"""Width inside a transformer block's feed-forward part, which is gated, in widths of its level."""


def parameters_of(architecture: Architecture) -> dict[Component, dict[str, Shape]]:
    """Return the name and shape of every parameter that each component loads."""
    first, second = architecture.encoders
    return {
        Component.UNET: dict(_unet(architecture.unet)),
        Component.VAE: dict(_vae(architecture.vae)),
        # Transformers since 5.6: only the encoder with a projection has a `text_model` inside.
        Component.TEXT_ENCODER: dict(_text_model(first)),
        Component.TEXT_ENCODER_2: {
            **dict(_within("text_model.", _text_model(second))),
            "text_projection.weight": (second.projection_width, second.width),
        },
    }


def _unet(sizes: UNetSizes) -> Iterator[Parameter]:
    finest, coarsest = sizes.widths[0], sizes.widths[-1]
    time = _TIME_FACTOR * finest
    yield from _convolution("conv_in", finest, sizes.input_channels)
    for name, inputs in (("time_embedding", finest), ("add_embedding", sizes.added_width)):
        yield from _linear(f"{name}.linear_1", time, inputs)
        yield from _linear(f"{name}.linear_2", time, time)
    for level, (before, width) in enumerate(pairwise((finest, *sizes.widths))):
        name = f"down_blocks.{level}"
        for layer in range(LAYERS_PER_LEVEL):
            inputs = width if layer else before
            yield from _residual(f"{name}.resnets.{layer}", width, inputs, time)
            yield from _attention(f"{name}.attentions.{layer}", sizes, level)
        if level < len(sizes.widths) - 1:
            yield from _convolution(f"{name}.downsamplers.0.conv", width, width)
    for layer in range(2):
        yield from _residual(f"mid_block.resnets.{layer}", coarsest, coarsest, time)
    yield from _attention("mid_block.attentions.0", sizes, len(sizes.widths) - 1)
    yield from _unet_up(sizes, time)
    yield from _norm("conv_norm_out", finest)
    yield from _convolution("conv_out", LATENT_CHANNELS, finest)


def _unet_up(sizes: UNetSizes, time: int) -> Iterator[Parameter]:
    """Yield the way up: each layer takes what comes from below beside one layer's of the way down.

    The last of a level's takes what came into that level on the way down.
    """
    inputs = sizes.widths[-1]
    for index, level in enumerate(reversed(range(len(sizes.widths)))):
        name, width = f"up_blocks.{index}", sizes.widths[level]
        for layer in range(LAYERS_PER_LEVEL + 1):
            beside = width if layer < LAYERS_PER_LEVEL else sizes.widths[max(0, level - 1)]
            yield from _residual(f"{name}.resnets.{layer}", width, inputs + beside, time)
            yield from _attention(f"{name}.attentions.{layer}", sizes, level)
            inputs = width
        if level:
            yield from _convolution(f"{name}.upsamplers.0.conv", width, width)


def _attention(name: str, sizes: UNetSizes, level: int) -> Iterator[Parameter]:
    """Yield the attention behind a residual block of a level that has any."""
    width, layers = sizes.widths[level], sizes.transformer_layers[level]
    if not layers:
        return
    yield from _norm(f"{name}.norm", width)
    yield from _linear(f"{name}.proj_in", width, width)
    for layer in range(layers):
        block = f"{name}.transformer_blocks.{layer}"
        for index, context in ((1, width), (2, sizes.context_width)):
            yield from _norm(f"{block}.norm{index}", width)
            yield f"{block}.attn{index}.to_q.weight", (width, width)
            yield f"{block}.attn{index}.to_k.weight", (width, context)
            yield f"{block}.attn{index}.to_v.weight", (width, context)
            yield from _linear(f"{block}.attn{index}.to_out.0", width, width)
        yield from _norm(f"{block}.norm3", width)
        yield from _linear(f"{block}.ff.net.0.proj", 2 * _MLP_FACTOR * width, width)
        yield from _linear(f"{block}.ff.net.2", width, _MLP_FACTOR * width)
    yield from _linear(f"{name}.proj_out", width, width)


def _vae(sizes: VaeSizes) -> Iterator[Parameter]:
    widths, latent = sizes.widths, sizes.latent_channels
    coarsest = widths[-1]
    ways = (
        # name, of its blocks and of what is between two of them, layers, widths from its first
        ("encoder", "down", LAYERS_PER_LEVEL, widths),
        ("decoder", "up", LAYERS_PER_LEVEL + 1, widths[::-1]),
    )
    # The encoder gives mean and variance of each latent.
    ends = {"encoder": (_COLOURS, 2 * latent), "decoder": (latent, _COLOURS)}
    for half, way, layers, levels in ways:
        first, last = ends[half]
        yield from _convolution(f"{half}.conv_in", levels[0], first)
        for index, (before, width) in enumerate(pairwise((levels[0], *levels))):
            block = f"{half}.{way}_blocks.{index}"
            for layer in range(layers):
                inputs = width if layer else before
                yield from _residual(f"{block}.resnets.{layer}", width, inputs)
            if index < len(levels) - 1:
                yield from _convolution(f"{block}.{way}samplers.0.conv", width, width)
        for layer in range(2):
            yield from _residual(f"{half}.mid_block.resnets.{layer}", coarsest, coarsest)
        attention = f"{half}.mid_block.attentions.0"
        yield from _norm(f"{attention}.group_norm", coarsest)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            yield from _linear(f"{attention}.{part}", coarsest, coarsest)
        yield from _norm(f"{half}.conv_norm_out", levels[-1])
        yield from _convolution(f"{half}.conv_out", last, levels[-1])
    yield from _convolution("quant_conv", 2 * latent, 2 * latent, kernel=1)
    yield from _convolution("post_quant_conv", latent, latent, kernel=1)


def _text_model(sizes: TextEncoderSizes) -> Iterator[Parameter]:
    width = sizes.width
    yield "embeddings.token_embedding.weight", (sizes.vocabulary, width)
    yield "embeddings.position_embedding.weight", (sizes.positions, width)
    for layer in range(sizes.layers):
        name = f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{name}.self_attn.{part}", width, width)
        yield from _linear(f"{name}.mlp.fc1", sizes.mlp_width, width)
        yield from _linear(f"{name}.mlp.fc2", width, sizes.mlp_width)
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _norm(f"{name}.{norm}", width)
    yield from _norm("final_layer_norm", width)


def _residual(name: str, outputs: int, inputs: int, time: int = 0) -> Iterator[Parameter]:
    """Yield a residual block; `time` is the width of the embedded timestep, 0 for none."""
    yield from _norm(f"{name}.norm1", inputs)
    yield from _convolution(f"{name}.conv1", outputs, inputs)
    if time:
        yield from _linear(f"{name}.time_emb_proj", outputs, time)
    yield from _norm(f"{name}.norm2", outputs)
    yield from _convolution(f"{name}.conv2", outputs, outputs)
    if inputs != outputs:
        yield from _convolution(f"{name}.conv_shortcut", outputs, inputs, kernel=1)


def _convolution(name: str, outputs: int, inputs: int, kernel: int = 3) -> Iterator[Parameter]:
    yield f"{name}.weight", (outputs, inputs, kernel, kernel)
    yield f"{name}.bias", (outputs,)


def _linear(name: str, outputs: int, inputs: int) -> Iterator[Parameter]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[Parameter]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _within(prefix: str, parameters: Iterable[Parameter]) -> Iterator[Parameter]:
    return ((prefix + name, shape) for name, shape in parameters)
