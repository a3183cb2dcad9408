"""The sizes of an SDXL model, read from its tensors' shapes; pure, no torch.

Shapes hold every width and depth, but not attention's head counts, which follow SDXL's rule
(`_unet_heads`, `_encoder_heads`). `configs.py` turns these sizes into Diffusers' configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

from lpw_sdxl.checkpoint.kinds import (
    FIRST_ENCODER,
    SECOND_ENCODER,
    SECOND_ENCODER_TRANSFORMERS,
    UNET,
    VAE,
)
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.weights.header import CheckpointHeader

UNET_LEVELS = 3
LAYERS_PER_LEVEL = 2
"""Residual blocks of a level on the UNet's way down; one more on the way up."""
LATENT_CHANNELS = 4
INPAINTING_CHANNELS = 2 * LATENT_CHANNELS + 1
SIZE_EMBEDDING_WIDTH = 256
"""Width of each of the six embedded numbers (sizes and crop) beside the pooled text."""
SIZE_EMBEDDINGS = 6
MAX_NORM_GROUPS = 32
MIN_GROUP_WIDTH = 4
"""Channels that are normalised together: SDXL's VAE has four, 32 groups of its finest 128."""
CLIP_TOKENS = (49408, 77)
"""Tokens in CLIP's vocabulary and in one window."""

_SDXL_WIDTH = 320
_SDXL_HEAD_WIDTH = 64
_SMALL_HEAD_WIDTH = 16
_CLIP_HEAD_WIDTH = 64
_CLIP_MIN_WIDTH = 768
_SMALL_ENCODER_HEADS = 4
_BLOCK_TENSORS = 100
"""Of a transformer block in all five attentions of its level, 20 each."""
_LAYER_TENSORS = 12
"""Of a text encoder's layer, fused as in OpenCLIP; a level of the VAE has more."""


@dataclass(frozen=True)
class UNetSizes:
    """The UNet's sizes; tuples go from the finest level to the coarsest.

    Attributes:
        widths: channels of each level.
        transformer_layers: transformer blocks in each attention of a level, 0 for no attention.
        context_width: width of the text it attends to.
        added_width: width of pooled text and embedded sizes together.
        input_channels: 4 of latents; of an inpainting model 9, with a mask and the latents of what
            is not masked.
    """

    widths: tuple[int, ...]
    transformer_layers: tuple[int, ...]
    context_width: int
    added_width: int
    input_channels: int = LATENT_CHANNELS

    @property
    def is_inpainting(self) -> bool:
        """Return whether the UNet sees a mask and what is not masked."""
        return self.input_channels == INPAINTING_CHANNELS

    @property
    def heads(self) -> tuple[int, ...]:
        """Return the attention heads of each level.

        SDXL has 64 channels a head (Podell et al., "SDXL", 2023, section 2.1 and its published
        configuration). A UNet whose finest level is not 320 wide is not SDXL's own but a small one,
        made for the demo or for tests; it has 16 channels a head.
        """
        head_width = _SDXL_HEAD_WIDTH if self.widths[0] == _SDXL_WIDTH else _SMALL_HEAD_WIDTH
        return tuple(width // head_width for width in self.widths)


@dataclass(frozen=True)
class TextEncoderSizes:
    """One text encoder's sizes.

    Attributes:
        width: of its hidden states.
        layers: transformer layers.
        mlp_width: inside a layer's feed-forward part.
        projection_width: of its pooled output.
        vocabulary: tokens it knows.
        positions: tokens in a window.
    """

    width: int
    layers: int
    mlp_width: int
    projection_width: int
    vocabulary: int
    positions: int

    @property
    def heads(self) -> int:
        """Return the attention heads of a layer.

        CLIP has 64 channels a head (12 for 768, 20 for 1280: Radford et al., 2021, tables 19 and
        20, and OpenCLIP's ViT-bigG-14). A narrower encoder is a small one of ours and has 4 heads.
        """
        is_clip = self.width >= _CLIP_MIN_WIDTH
        return self.width // _CLIP_HEAD_WIDTH if is_clip else _SMALL_ENCODER_HEADS


@dataclass(frozen=True)
class VaeSizes:
    """The VAE's sizes: channels of each level, finest first, and of a latent."""

    widths: tuple[int, ...]
    latent_channels: int


@dataclass(frozen=True)
class Architecture:
    """The sizes of all four networks; `encoders` in SDXL's order (CLIP ViT-L, OpenCLIP bigG)."""

    unet: UNetSizes
    encoders: tuple[TextEncoderSizes, TextEncoderSizes]
    vae: VaeSizes


SDXL = Architecture(
    unet=UNetSizes(
        widths=(_SDXL_WIDTH, 640, 1280),
        transformer_layers=(0, 2, 10),
        context_width=768 + 1280,
        added_width=1280 + SIZE_EMBEDDINGS * SIZE_EMBEDDING_WIDTH,
    ),
    encoders=(
        TextEncoderSizes(768, 12, 3072, 768, *CLIP_TOKENS),
        TextEncoderSizes(1280, 32, 5120, 1280, *CLIP_TOKENS),
    ),
    vae=VaeSizes((128, 256, 512, 512), latent_channels=LATENT_CHANNELS),
)
"""SDXL's own sizes (Podell et al., "SDXL", 2023, table 1, and the published configurations)."""


def norm_groups(widths: tuple[int, ...]) -> int:
    """Return in how many groups a network's channels are normalised.

    SDXL's 32, or as many as leave the finest level four channels in each. A group of one channel
    would lose its mean, and with it a flat picture's colour.
    """
    return min(MAX_NORM_GROUPS, max(1, widths[0] // MIN_GROUP_WIDTH))


def read_architecture(header: CheckpointHeader) -> Architecture:
    """Read an SDXL checkpoint's sizes from its tensors' shapes.

    Raises:
        CheckpointError: a tensor that a size is read from is missing, or has a shape that
            SDXL's can't have; it is named.
    """
    shapes = _Shapes(header)
    architecture = Architecture(
        unet=_read_unet(shapes),
        encoders=(_read_first_encoder(shapes), _read_second_encoder(shapes)),
        vae=_read_vae(shapes),
    )
    _check(architecture, header)
    return architecture


class _Shapes:
    """Sizes of named tensors, with the sentence that is due where one is missing."""

    def __init__(self, header: CheckpointHeader) -> None:
        self._file_of = header.file_of
        self._tensors = header.tensors

    def has(self, name: str) -> bool:
        """Return whether there is a tensor of this name."""
        return name in self._tensors

    def size(self, name: str, dimension: int, *, dimensions: int) -> int:
        """Return one size of a tensor that must have so many dimensions."""
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self._file_of(name)} has no tensor {name}; SDXL needs it.")
        if len(tensor.shape) != dimensions or 0 in tensor.shape:
            raise CheckpointError(
                f"{self._file_of(name)}: tensor {name} has the shape {list(tensor.shape)}; "
                f"SDXL's has {dimensions} dimensions, none of them 0."
            )
        return tensor.shape[dimension]

    def count(self, template: str, *, tensors_each: int, like: str | None = None) -> int:
        """Return how many numbers 0, 1, 2, … give the prefix of a part that the file has.

        Args:
            template: the prefix, with `{}` for the number.
            tensors_each: how many tensors every part has at least. A file that names more parts
                than it can have lacks some of them; no more are counted.
            like: prefix of a part that surely is one, else number 0. A stray tensor whose name goes
                on in another way makes no part.
        """
        model = template.format(0) if like is None else like
        rests = {name.removeprefix(model) for name in self._tensors if name.startswith(model)}
        index, most = 0, len(self._tensors) // tensors_each + 1
        while index < most and any(
            template.format(index) + rest in self._tensors for rest in rests
        ):
            index += 1
        return index


def _read_unet(shapes: _Shapes) -> UNetSizes:
    firsts = [f"{UNET}input_blocks.{1 + (LAYERS_PER_LEVEL + 1) * i}." for i in range(UNET_LEVELS)]
    block = f"{firsts[-1]}1.transformer_blocks.0."
    attended = f"{block}attn2.to_k.weight"
    return UNetSizes(
        widths=tuple(shapes.size(f"{f}0.out_layers.3.weight", 0, dimensions=4) for f in firsts),
        transformer_layers=tuple(
            shapes.count(f + "1.transformer_blocks.{}.", tensors_each=_BLOCK_TENSORS, like=block)
            for f in firsts
        ),
        context_width=shapes.size(attended, 1, dimensions=2),
        added_width=shapes.size(f"{UNET}label_emb.0.0.weight", 1, dimensions=2),
        input_channels=shapes.size(f"{UNET}input_blocks.0.0.weight", 1, dimensions=4),
    )


def _read_first_encoder(shapes: _Shapes) -> TextEncoderSizes:
    # Its pooled output is not used, so the file has no projection; Transformers wants a width.
    width = shapes.size(f"{FIRST_ENCODER}embeddings.token_embedding.weight", 1, dimensions=2)
    return _read_transformers_encoder(shapes, FIRST_ENCODER, projection_width=width)


def _read_second_encoder(shapes: _Shapes) -> TextEncoderSizes:
    if shapes.has(f"{SECOND_ENCODER_TRANSFORMERS}text_model.encoder.layers.0.mlp.fc1.weight"):
        model = f"{SECOND_ENCODER_TRANSFORMERS}text_model."
        return _read_transformers_encoder(shapes, model, _projection_width(shapes))
    layer = f"{SECOND_ENCODER}transformer.resblocks."
    return TextEncoderSizes(
        width=shapes.size(f"{SECOND_ENCODER}token_embedding.weight", 1, dimensions=2),
        layers=shapes.count(layer + "{}.", tensors_each=_LAYER_TENSORS),
        mlp_width=shapes.size(f"{layer}0.mlp.c_fc.weight", 0, dimensions=2),
        projection_width=_projection_width(shapes),
        vocabulary=shapes.size(f"{SECOND_ENCODER}token_embedding.weight", 0, dimensions=2),
        positions=shapes.size(f"{SECOND_ENCODER}positional_embedding", 0, dimensions=2),
    )


def _read_transformers_encoder(
    shapes: _Shapes, model: str, projection_width: int
) -> TextEncoderSizes:
    """Read an encoder whose tensors have Transformers' names behind a prefix."""
    layer, embeddings = f"{model}encoder.layers.", f"{model}embeddings."
    return TextEncoderSizes(
        width=shapes.size(f"{embeddings}token_embedding.weight", 1, dimensions=2),
        layers=shapes.count(layer + "{}.", tensors_each=_LAYER_TENSORS),
        mlp_width=shapes.size(f"{layer}0.mlp.fc1.weight", 0, dimensions=2),
        projection_width=projection_width,
        vocabulary=shapes.size(f"{embeddings}token_embedding.weight", 0, dimensions=2),
        positions=shapes.size(f"{embeddings}position_embedding.weight", 0, dimensions=2),
    )


def _projection_width(shapes: _Shapes) -> int:
    """Read the width of the pooled output; Transformers' matrix has it first, OpenCLIP's last."""
    transformers_name = f"{SECOND_ENCODER_TRANSFORMERS}text_projection.weight"
    if shapes.has(transformers_name):
        return shapes.size(transformers_name, 0, dimensions=2)
    return shapes.size(f"{SECOND_ENCODER}text_projection", 1, dimensions=2)


def _read_vae(shapes: _Shapes) -> VaeSizes:
    levels = range(shapes.count(VAE + "encoder.down.{}.", tensors_each=_LAYER_TENSORS))
    return VaeSizes(
        widths=tuple(
            shapes.size(f"{VAE}encoder.down.{level}.block.0.conv2.weight", 0, dimensions=4)
            for level in levels
        ),
        latent_channels=shapes.size(f"{VAE}post_quant_conv.weight", 0, dimensions=4),
    )


def _check(architecture: Architecture, header: CheckpointHeader) -> None:
    """Refuse sizes that don't fit together, before Diffusers trips over them."""
    unet, encoders, vae = architecture.unet, architecture.encoders, architecture.vae
    context_width = sum(encoder.width for encoder in encoders)
    added_width = encoders[1].projection_width + SIZE_EMBEDDINGS * SIZE_EMBEDDING_WIDTH
    headed = [*zip(unet.widths, unet.heads, strict=True), *((e.width, e.heads) for e in encoders)]
    rules = {
        f"{UNET}*.attn2.to_k.weight must take {context_width} numbers, both encoders' widths": (
            unet.context_width == context_width
        ),
        f"{UNET}label_emb.0.0.weight must take {added_width} numbers, pooled text and sizes": (
            unet.added_width == added_width
        ),
        f"{UNET}input_blocks.0.0.weight must take {LATENT_CHANNELS} channels, or "
        f"{INPAINTING_CHANNELS} of an inpainting model": (
            unet.input_channels in (LATENT_CHANNELS, INPAINTING_CHANNELS)
        ),
        f"{UNET}* must have widths that are multiples of {norm_groups(unet.widths)}": all(
            width % norm_groups(unet.widths) == 0 for width in unet.widths
        ),
        f"{VAE}* must have widths that are multiples of {norm_groups(vae.widths)}": all(
            width % norm_groups(vae.widths) == 0 for width in vae.widths
        ),
        f"{VAE}* must have four levels and four latent channels": (
            len(vae.widths) == 4 and vae.latent_channels == LATENT_CHANNELS
        ),
        "the widths of UNet and text encoders must be multiples of their attention heads": all(
            heads > 0 and width % heads == 0 for width, heads in headed
        ),
        "both text encoders must know CLIP's 49,408 tokens and 77 positions": all(
            (encoder.vocabulary, encoder.positions) == CLIP_TOKENS for encoder in encoders
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            # A rule begins with the names of the tensors that break it.
            raise CheckpointError(f"{header.file_of(rule)} doesn't have SDXL's shapes: {rule}.")
