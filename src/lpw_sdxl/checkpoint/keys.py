"""Where each of Diffusers' parameters is found in a single-file SDXL checkpoint; pure, no torch.

The original layout is that of Stability AI's `generative-models` (UNet and VAE), Transformers' CLIP
before 5.6 (first text encoder) and OpenCLIP (second). The map is a table of names, read from
Diffusers' side: every target has exactly one source; `plan.py` proves that every source is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from lpw_sdxl.checkpoint.architecture import LAYERS_PER_LEVEL, UNET_LEVELS
from lpw_sdxl.checkpoint.kinds import (
    CONDITIONER,
    FIRST_ENCODER,
    SECOND_ENCODER,
    SECOND_ENCODER_TRANSFORMERS,
    UNET,
    VAE,
)
from lpw_sdxl.weights.component import Component

Shape = tuple[int, ...]


class Transform(Enum):
    """The change of a source tensor into its target.

    QUERY, KEY and VALUE take the first, second and last third of the rows of a fused tensor.
    """

    KEEP = "as it is"
    TRANSPOSE = "rows and columns swapped"
    POINTWISE_TO_LINEAR = "1x1 convolution kernel as a matrix"
    QUERY = "first third of the rows"
    KEY = "second third of the rows"
    VALUE = "last third of the rows"

    @property
    def third(self) -> int | None:
        """Return which third of the rows is taken, or None for all."""
        return {Transform.QUERY: 0, Transform.KEY: 1, Transform.VALUE: 2}.get(self)

    def source_shapes(self, target: Shape) -> tuple[Shape, ...]:
        """Return the shapes that a source may have to give a target of this shape, best first."""
        if self is Transform.TRANSPOSE:
            return (target[::-1],)
        if self is Transform.POINTWISE_TO_LINEAR:
            # Some tools save the VAE's attention as matrices already, or as 1-D convolutions.
            return ((*target, 1, 1), target, (*target, 1))
        return (target,) if self.third is None else ((3 * target[0], *target[1:]),)


@dataclass(frozen=True)
class Source:
    """A tensor of the original layout and what is done to it."""

    key: str
    transform: Transform = Transform.KEEP


def sources_of(component: Component, target_key: str) -> tuple[Source, ...]:
    """Return where a parameter of a component may come from, the usual place first.

    A name that the table doesn't know comes back unchanged behind its component's prefix: it then
    fails as a missing tensor, by name.
    """
    usual = _SOURCES[component](target_key)
    if component is Component.TEXT_ENCODER_2:
        # Diffusers' old converter left the projection in Transformers' layout, and Forge's of 2024
        # the whole encoder (diffusers issue 6934; stable-diffusion-webui-forge pull request 2636).
        return (usual, Source(SECOND_ENCODER_TRANSFORMERS + target_key))
    return (usual,)


def network_of(name: str) -> str | None:
    """Return the network whose own names a tensor's name is one of, or None for no part of SDXL.

    Stability's names count, what `layout.py` turns into them, and Diffusers' folders.
    """
    return next((network for prefix, network in _NETWORKS if name.startswith(prefix)), None)


def _unet_source(key: str) -> Source:
    block, rest = _longest_prefix(_UNET_BLOCKS, key)
    if ".resnets." in block:
        rest = _rename(_UNET_RESNET, rest)
    return Source(UNET + _UNET_BLOCKS[block] + rest)


def _vae_source(key: str) -> Source:
    block, rest = _longest_prefix(_VAE_BLOCKS, key)
    transform = Transform.KEEP
    if ".attentions." in block:
        is_matrix = rest.endswith(".weight") and not rest.startswith("group_norm.")
        transform = Transform.POINTWISE_TO_LINEAR if is_matrix else Transform.KEEP
        rest = _rename(_VAE_ATTENTION, rest)
    rest = rest.replace("conv_shortcut.", "nin_shortcut.")
    return Source(VAE + _VAE_BLOCKS[block] + rest, transform)


def _first_encoder_source(key: str) -> Source:
    return Source(FIRST_ENCODER + key)


def _second_encoder_source(key: str) -> Source:
    if key in _OPENCLIP_TENSORS:
        # OpenCLIP multiplies from the right: x @ text_projection.
        transform = Transform.TRANSPOSE if key == _PROJECTION else Transform.KEEP
        return Source(SECOND_ENCODER + _OPENCLIP_TENSORS[key], transform)
    layer, _, rest = key.removeprefix(_CLIP_LAYERS).partition(".")
    module, _, kind = rest.rpartition(".")
    prefix = f"{SECOND_ENCODER}transformer.resblocks.{layer}."
    if module in _OPENCLIP_FUSED:
        return Source(f"{prefix}attn.in_proj_{kind}", _OPENCLIP_FUSED[module])
    return Source(prefix + _rename(_OPENCLIP_LAYER, rest))


def _longest_prefix(table: Mapping[str, str], key: str) -> tuple[str, str]:
    """Split a key behind the longest run of its parts that the table knows ('' always matches)."""
    parts = key.split(".")
    for count in range(len(parts) - 1, 0, -1):
        prefix = ".".join(parts[:count]) + "."
        if prefix in table:
            return prefix, key[len(prefix) :]
    return "", key


def _rename(table: Mapping[str, str], key: str) -> str:
    """Rename the module that a key begins with."""
    module, _, kind = key.rpartition(".")
    return f"{table.get(module, module)}.{kind}"


def _unet_blocks() -> dict[str, str]:
    """Number the UNet's blocks: the original layout counts them through all levels."""
    blocks = {
        "": "",
        "conv_in.": "input_blocks.0.0.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "add_embedding.linear_1.": "label_emb.0.0.",
        "add_embedding.linear_2.": "label_emb.0.2.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
    }
    for level in range(UNET_LEVELS):
        down, up = f"down_blocks.{level}.", f"up_blocks.{level}."
        # Block 0 is conv_in; each level has its layers and, but for the last, a downsampler.
        first_in, first_out = 1 + level * (LAYERS_PER_LEVEL + 1), level * (LAYERS_PER_LEVEL + 1)
        for layer in range(LAYERS_PER_LEVEL):
            blocks[f"{down}resnets.{layer}."] = f"input_blocks.{first_in + layer}.0."
            blocks[f"{down}attentions.{layer}."] = f"input_blocks.{first_in + layer}.1."
        blocks[f"{down}downsamplers.0.conv."] = f"input_blocks.{first_in + LAYERS_PER_LEVEL}.0.op."
        for layer in range(LAYERS_PER_LEVEL + 1):
            blocks[f"{up}resnets.{layer}."] = f"output_blocks.{first_out + layer}.0."
            blocks[f"{up}attentions.{layer}."] = f"output_blocks.{first_out + layer}.1."
        # An upsampler follows resnet and attention in the last block of its level.
        blocks[f"{up}upsamplers.0.conv."] = f"output_blocks.{first_out + LAYERS_PER_LEVEL}.2.conv."
    return blocks


def _vae_blocks(levels: int = 4) -> dict[str, str]:
    """Number the VAE's blocks: the original layout counts the decoder's levels from the finest."""
    blocks = {"": ""}
    for half in ("encoder.", "decoder."):
        blocks |= {
            f"{half}conv_norm_out.": f"{half}norm_out.",
            f"{half}mid_block.resnets.0.": f"{half}mid.block_1.",
            f"{half}mid_block.resnets.1.": f"{half}mid.block_2.",
            f"{half}mid_block.attentions.0.": f"{half}mid.attn_1.",
        }
    for level in range(levels):
        down, up = f"encoder.down_blocks.{level}.", f"decoder.up_blocks.{level}."
        old_down, old_up = f"encoder.down.{level}.", f"decoder.up.{levels - 1 - level}."
        for layer in range(LAYERS_PER_LEVEL + 1):
            blocks[f"{down}resnets.{layer}."] = f"{old_down}block.{layer}."
            blocks[f"{up}resnets.{layer}."] = f"{old_up}block.{layer}."
        blocks[f"{down}downsamplers.0.conv."] = f"{old_down}downsample.conv."
        blocks[f"{up}upsamplers.0.conv."] = f"{old_up}upsample.conv."
    return blocks


_UNET_BLOCKS = _unet_blocks()
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_BLOCKS = _vae_blocks()
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_PROJECTION = "text_projection.weight"
_CLIP_LAYERS = "text_model.encoder.layers."
_OPENCLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPENCLIP_FUSED = {
    "self_attn.q_proj": Transform.QUERY,
    "self_attn.k_proj": Transform.KEY,
    "self_attn.v_proj": Transform.VALUE,
}
_OPENCLIP_TENSORS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    _PROJECTION: "text_projection",
}
_SOURCES = {
    Component.UNET: _unet_source,
    Component.VAE: _vae_source,
    Component.TEXT_ENCODER: _first_encoder_source,
    Component.TEXT_ENCODER_2: _second_encoder_source,
}
_NETWORKS = (
    (UNET, "the UNet"),
    (f"{Component.UNET}.", "the UNet"),
    (VAE, "the VAE"),
    (f"{CONDITIONER}0.", "the first text encoder"),
    (f"{Component.TEXT_ENCODER}.", "the first text encoder"),
    (f"{CONDITIONER}1.", "the second text encoder"),
    (f"{Component.TEXT_ENCODER_2}.", "the second text encoder"),
    (CONDITIONER, "a third text encoder"),
    ("text_encoders.", "a third text encoder"),
    ("conditioner.", "the text encoders"),
)
"""Beginnings of names; the first that fits counts."""
