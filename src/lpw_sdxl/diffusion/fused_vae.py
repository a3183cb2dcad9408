"""SDXL's VAE in half precision: fused operations, and features that don't overflow float16.

SDXL's own VAE was trained in float32, and the stream of residuals in its deeper blocks grows beyond
65,504. Each block normalises what it takes from that stream, so that a stream of a sixteenth of the
size gives the same result: `scale_down_stream` multiplies all that is added to the stream by 2^-4,
and `eps` of the norms, which stands beside the variance, by 2^-8. A power of two changes no digit
of a weight; weights below 0.001 come into float16's subnormal numbers, which are coarser: by less
than 2^-25 each.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from lpw_sdxl.diffusion.fused_unet import fuse_resnet, is_fusable_resnet
from lpw_sdxl.diffusion.kernels.operations import Operations

STREAM_SCALE = 2.0**-4


def scale_down_stream(vae: Any, scale: float = STREAM_SCALE) -> None:
    """Scale the stream of residuals of both halves of a VAE; its results stay the same.

    Args:
        vae: Diffusers' AutoencoderKL, in any dtype; to be called once.
        scale: a power of two.
    """
    with torch.no_grad():
        for half in (vae.encoder, vae.decoder):
            for layer in _sources(half):
                layer.weight.mul_(scale)
            for layer in (*_sources(half), *_passages(half)):
                if layer.bias is not None:
                    layer.bias.mul_(scale)
    for half in (vae.encoder, vae.decoder):
        for module in half.modules():
            if isinstance(module, nn.GroupNorm):
                module.eps *= scale * scale


def fuse_vae(vae: Any, operations: Operations) -> None:
    """Make a half-precision VAE compute its residual blocks fused, in channels-last memory.

    In float32, into which a picture that overflows is taken, they are computed as before.

    Args:
        vae: Diffusers' AutoencoderKL.
        operations: between its convolutions.
    """
    vae.to(memory_format=torch.channels_last)
    for half in (vae.encoder, vae.decoder):
        for module in half.modules():
            if isinstance(module, ResnetBlock2D) and is_fusable_resnet(module):
                module.forward = partial(_resnet, operations, module, module.forward)


def _resnet(
    operations: Operations,
    block: Any,
    as_before: Any,
    states: Tensor,
    temb: Tensor | None = None,  # Diffusers passes it by this name, and a VAE has no timestep
) -> Tensor:
    if states.dtype in (torch.float16, torch.bfloat16):
        return fuse_resnet(operations, block, states, temb)
    return cast(Tensor, as_before(states, temb))


def _resnets(half: nn.Module) -> list[Any]:
    return [module for module in half.modules() if isinstance(module, ResnetBlock2D)]


def _sources(half: Any) -> Iterator[Any]:
    """Yield the layers whose input is no part of the stream, and whose output is added to it.

    A block's first convolution is one of them: its output is normalised, and may overflow too.
    """
    yield half.conv_in
    for block in _resnets(half):
        yield block.conv1
        yield block.conv2
    for attention in half.mid_block.attentions:
        if attention is not None:
            yield attention.to_out[0]


def _passages(half: Any) -> Iterator[Any]:
    """Yield the layers that the stream itself goes through: their weights stay."""
    for block in _resnets(half):
        if block.conv_shortcut is not None:
            yield block.conv_shortcut
    for stage in (*getattr(half, "down_blocks", ()), *getattr(half, "up_blocks", ())):
        for resample in (
            *(getattr(stage, "downsamplers", None) or ()),
            *(getattr(stage, "upsamplers", None) or ()),
        ):
            yield resample.conv
