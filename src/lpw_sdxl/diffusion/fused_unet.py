"""SDXL's UNet with fused operations between its products, in channels-last memory.

Diffusers' residual blocks and transformers are computed by the functions below; their layers stay
where they are, and their weights are read in each call, so that LoRAs can exchange them. A block is
computed as before where a layer that is passed over has a forward of its own: its rows have
different LoRAs.

It needs the attention processors of `diffusion/attention.py` in the UNet. The last norm of the UNet
is left to torch: a LoRA may take its place, and it is a thousandth of a call.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from lpw_sdxl.diffusion.attention import SELF_ATTENTION, attend
from lpw_sdxl.diffusion.float8 import Float8Products, quantised_weight
from lpw_sdxl.diffusion.fused_layers import (
    convolve,
    has_own_forward,
    join_weights,
    view_joined,
    widen,
)
from lpw_sdxl.diffusion.kernels.operations import Activation, Operations
from lpw_sdxl.weights.float8 import Quantised


class Fusion(NamedTuple):
    """The way in which a UNet is fused.

    Attributes:
        operations: between its products.
        float8: computes products of transformers in fp8; None computes them in the UNet's dtype.
    """

    operations: Operations
    float8: Float8Products | None = None

    @property
    def quantises(self) -> bool:
        """Return whether activations come in fp8."""
        return self.float8 is not None


class _Replaced(NamedTuple):
    """A module whose forward is replaced.

    Attributes:
        module: Diffusers' own.
        as_before: its forward until then.
        passed_over: its layers whose own forward is not called any more.
    """

    module: Any
    as_before: Any
    passed_over: tuple[nn.Module | None, ...]


class _Prompt(NamedTuple):
    """The prompts of a call's rows, as Diffusers' transformers get them.

    Attributes:
        states: `[rows, tokens, width]`, or `[rows, tokens, 2048]`.
        mask: added to the scores, `[rows, 1, tokens]`, or None.
    """

    states: Tensor
    mask: Tensor | None


def arrange_weights(unet: nn.Module) -> None:
    """Lay out a UNet's weights for `fuse_unet`; no number changes.

    Convolutions' weights become channels-last, and query, key and value of each self-attention one
    stretch. To be called where the UNet stays, before anything notes its tensors.
    """
    unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # typed for 4-D only
    for name, module in unet.named_modules():
        if name.endswith(SELF_ATTENTION):
            join_weights(_inputs_of(module))


def fuse_unet(unet: nn.Module, fusion: Fusion) -> None:
    """Make a UNet compute its residual blocks and transformers fused; no weight changes.

    Args:
        unet: Diffusers' UNet2DConditionModel, laid out by `arrange_weights`, with the processors of
            `PromptProjection`.
        fusion: how.
    """
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D) and is_fusable_resnet(module):
            resnet = _Replaced(module, module.forward, _passed_over_in_resnet(module))
            module.forward = partial(_resnet, fusion.operations, resnet)
        elif isinstance(module, Transformer2DModel) and is_fusable_transformer(module):
            layers = _passed_over_in_transformer(module, fusion)
            transformer = _Replaced(module, module.forward, layers)
            module.forward = partial(_transformer, fusion, transformer)


def is_fusable_resnet(block: Any) -> bool:
    """Return whether a residual block is one of SDXL's kind, which `fuse_resnet` computes."""
    resamples = block.upsample is not None or block.downsample is not None
    return (
        not resamples
        # A VAE's blocks have no timestep, and Diffusers calls their norm by other names.
        and (block.time_embedding_norm == "default" or block.time_emb_proj is None)
        and block.output_scale_factor == 1.0
        and isinstance(block.nonlinearity, nn.SiLU)
        and not block.skip_time_act
    )


def is_fusable_transformer(module: Any) -> bool:
    """Return whether a transformer is one of SDXL's kind: linear projections, plain norms."""
    return bool(
        module.is_input_continuous
        and module.use_linear_projection
        and all(block.norm_type == "layer_norm" for block in module.transformer_blocks)
    )


def fuse_resnet(
    operations: Operations, block: Any, states: Tensor, embedding: Tensor | None
) -> Tensor:
    """Compute a residual block whose layers are all as they were made.

    Args:
        operations: between its convolutions.
        block: Diffusers' ResnetBlock2D.
        states: `[rows, channels, h, w]`.
        embedding: of the timestep, `[rows, d]`; None in a VAE.
    """
    first, second = block.conv1, block.conv2
    hidden = operations.group_norm(states, block.norm1, has_silu=True)
    shift = widen(first.bias).expand(len(states), -1)
    if embedding is not None:
        shift = shift + widen(block.time_emb_proj(F.silu(embedding)))
    hidden = operations.group_norm(
        convolve(first, hidden), block.norm2, has_silu=True, shift=shift.contiguous()
    )
    hidden = convolve(second, hidden)
    shortcut = block.conv_shortcut
    if shortcut is None:
        return operations.add_residual(hidden, states, second.bias)
    bias = widen(second.bias) + widen(shortcut.bias)
    return operations.add_residual(hidden, convolve(shortcut, states), bias)


def _resnet(
    operations: Operations,
    replaced: _Replaced,
    states: Tensor,
    temb: Tensor,  # of the timestep, by Diffusers' name
) -> Tensor:
    if has_own_forward(*replaced.passed_over):
        return cast(Tensor, replaced.as_before(states, temb))
    return fuse_resnet(operations, replaced.module, states, temb)


def _passed_over_in_resnet(block: Any) -> tuple[nn.Module | None, ...]:
    return block.norm1, block.norm2, block.conv1, block.conv2, block.conv_shortcut


def _transformer(
    fusion: Fusion,
    replaced: _Replaced,
    states: Tensor,
    encoder_hidden_states: Tensor,
    **others: Any,
) -> tuple[Tensor]:
    if has_own_forward(*replaced.passed_over):
        return cast(tuple[Tensor], replaced.as_before(states, encoder_hidden_states, **others))
    module = replaced.module
    prompt = _Prompt(encoder_hidden_states, others.get("encoder_attention_mask"))
    rows, channels, height, width = states.shape
    normed = fusion.operations.group_norm(states, module.norm, has_silu=False)
    tokens = module.proj_in(normed.permute(0, 2, 3, 1).reshape(rows, height * width, channels))
    pending: Tensor | None = None  # of the block before, still to be added
    for block in module.transformer_blocks:
        tokens, pending = _block(fusion, block, tokens, pending, prompt)
    tokens = module.proj_out(tokens + pending)
    back = tokens.view(rows, height, width, channels).permute(0, 3, 1, 2)
    return (fusion.operations.add_residual(back, states),)


def _passed_over_in_transformer(module: Any, fusion: Fusion) -> tuple[nn.Module | None, ...]:
    """List the norms, and in fp8 the products: in 16 bit those are called as layers."""
    kinds = (nn.LayerNorm, nn.Linear) if fusion.quantises else (nn.LayerNorm,)
    return (module.norm, *(one for one in module.modules() if isinstance(one, kinds)))


def _block(
    fusion: Fusion, block: Any, tokens: Tensor, pending: Tensor | None, prompt: _Prompt
) -> tuple[Tensor, Tensor]:
    """Compute a transformer's block.

    Args:
        fusion: how.
        block: Diffusers' BasicTransformerBlock.
        tokens: the stream of residuals, `[rows, tokens, channels]`.
        pending: what the block before adds to it, or None.
        prompt: of the cross-attention.

    Returns:
        the stream, and what is still to be added to it.
    """
    operations, quantises = fusion.operations, fusion.quantises
    own, cross = block.attn1, block.attn2
    tokens, normed = operations.add_layer_norm(pending, tokens, block.norm1, quantises=quantises)
    attended = attend(*_project_inputs(fusion, own, normed), own.heads)
    pending = _project_plain(fusion, own.to_out[0], attended)
    tokens, normed = operations.add_layer_norm(pending, tokens, block.norm2, quantises=quantises)
    query = _project(fusion, cross.to_q, normed)
    attended = cross.processor.attend(cross, query, prompt.states, prompt.mask)
    pending = _project_plain(fusion, cross.to_out[0], attended)
    tokens, normed = operations.add_layer_norm(pending, tokens, block.norm3, quantises=quantises)
    wide = _project(fusion, block.ff.net[0].proj, normed)
    gated = operations.gate(wide, quantises=quantises)
    return tokens, _project(fusion, block.ff.net[2], gated)


def _project(fusion: Fusion, layer: nn.Linear, activation: Activation) -> Tensor:
    """Compute a layer's product of an activation, in fp8 if it is in fp8."""
    if isinstance(activation, Quantised):
        assert fusion.float8 is not None
        return fusion.float8.multiply(activation, quantised_weight(layer), layer.bias)
    return cast(Tensor, layer(activation))


def _project_plain(fusion: Fusion, layer: nn.Linear, states: Tensor) -> Tensor:
    """Compute a layer's product of what no fused operation has made."""
    activation = fusion.operations.quantise(states) if fusion.quantises else states
    return _project(fusion, layer, activation)


def _project_inputs(
    fusion: Fusion, attention: Any, activation: Activation
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute query, key and value of a self-attention, in one product if their weights allow."""
    layers = _inputs_of(attention)
    projected: Tensor | None = None
    if isinstance(activation, Quantised):
        weights = [quantised_weight(layer) for layer in layers]
        values = view_joined(tuple(weight.values for weight in weights))
        scales = view_joined(tuple(weight.scales for weight in weights))
        if values is not None and scales is not None:
            assert fusion.float8 is not None
            projected = fusion.float8.multiply(activation, Quantised(values, scales), None)
    elif not has_own_forward(*layers):
        joined = view_joined(tuple(layer.weight for layer in layers))
        projected = None if joined is None else F.linear(activation, joined)
    if projected is None:
        query, key, value = (_project(fusion, layer, activation) for layer in layers)
    else:
        query, key, value = projected.chunk(3, dim=-1)
    return query, key, value


def _inputs_of(attention: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    return attention.to_q, attention.to_k, attention.to_v
