"""The kinds of model file that people bring, told apart by the names and shapes of their tensors.

A table: the first row whose test holds names the file. Content decides, never the file's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from lpw_sdxl.checkpoint.header import TensorInfo

Tensors = Mapping[str, TensorInfo]

UNET = "model.diffusion_model."
VAE = "first_stage_model."
FIRST_ENCODER = "conditioner.embedders.0.transformer.text_model."
SECOND_ENCODER = "conditioner.embedders.1.model."

_SDXL_ADVICE = "an SDXL base checkpoint (or a fine-tune of it) is needed"


class CheckpointKind(Enum):
    """A kind of file: its name in a sentence, and what to do with it instead of importing it."""

    SDXL = ("an SDXL checkpoint", "")
    SDXL_INPAINTING = ("an SDXL inpainting checkpoint (9 input channels)", _SDXL_ADVICE)
    SDXL_EDITING = ("an SDXL checkpoint whose UNet doesn't take 4 channels", _SDXL_ADVICE)
    SDXL_REFINER = ("an SDXL refiner", _SDXL_ADVICE)
    SDXL_UNET = ("an SDXL UNet alone", "bring the full checkpoint, with text encoders and VAE")
    SD1 = ("a Stable Diffusion 1.x checkpoint", _SDXL_ADVICE)
    SD2 = ("a Stable Diffusion 2.x checkpoint", _SDXL_ADVICE)
    SD3 = ("a Stable Diffusion 3 checkpoint", _SDXL_ADVICE)
    FLUX = ("a Flux checkpoint", _SDXL_ADVICE)
    LORA = ("a LoRA", "import the SDXL checkpoint that it belongs to")
    EMBEDDING = ("a textual inversion embedding", "import an SDXL checkpoint first")
    CONTROLNET = ("a ControlNet", _SDXL_ADVICE)
    DIFFUSERS_UNET = (
        "a UNet in Diffusers' layout",
        "bring the single-file checkpoint it was taken from",
    )
    VAE = ("a VAE alone", "import the SDXL checkpoint that it belongs to")
    TEXT_ENCODER = ("a text encoder alone", "import the SDXL checkpoint that it belongs to")
    UNKNOWN = ("no model that we know", _SDXL_ADVICE)

    @property
    def title(self) -> str:
        """Return its name with its article."""
        return self.value[0]

    @property
    def advice(self) -> str:
        """Return what would be right instead."""
        return self.value[1]


def kind_of(tensors: Tensors) -> CheckpointKind:
    """Return the kind of the file that holds these tensors."""
    return next(kind for kind, holds in _KINDS if holds(tensors))


def _any_starts(*prefixes: str) -> Callable[[Tensors], bool]:
    return lambda tensors: any(name.startswith(prefixes) for name in tensors)


def _any_contains(*parts: str) -> Callable[[Tensors], bool]:
    return lambda tensors: any(part in name for name in tensors for part in parts)


def _is_sdxl(tensors: Tensors) -> bool:
    return _any_starts(SECOND_ENCODER)(tensors) and _any_starts(UNET)(tensors)


def _is_sdxl_taking(holds: Callable[[int], bool]) -> Callable[[Tensors], bool]:
    """Test an SDXL's number of input channels: 4 of latents, more for a mask or a second image."""

    def test(tensors: Tensors) -> bool:
        entry = tensors.get(UNET + "input_blocks.0.0.weight")
        if entry is None or len(entry.shape) != 4:
            return False
        return holds(entry.shape[1]) and _is_sdxl(tensors)

    return test


def _has(key: str) -> Callable[[Tensors], bool]:
    return lambda tensors: key in tensors


# Narrow tests first: a LoRA's names contain those of the model it belongs to.
_KINDS: tuple[tuple[CheckpointKind, Callable[[Tensors], bool]], ...] = (
    (CheckpointKind.LORA, _any_contains("lora_up", "lora_down", "lora_A", "lora_B")),
    (CheckpointKind.LORA, _any_contains("hada_w1", "lokr_w", "lora.up", "lora.down", "oft_blocks")),
    (
        CheckpointKind.CONTROLNET,
        _any_contains("control_model.", "controlnet_cond_embedding", "input_hint_block"),
    ),
    (CheckpointKind.FLUX, _any_contains("double_blocks.", "single_transformer_blocks.")),
    (CheckpointKind.SD3, _any_contains("joint_blocks.")),
    (CheckpointKind.SDXL_INPAINTING, _is_sdxl_taking(lambda channels: channels == 9)),
    (CheckpointKind.SDXL_EDITING, _is_sdxl_taking(lambda channels: channels != 4)),
    (CheckpointKind.SDXL, _is_sdxl),
    (CheckpointKind.SDXL_REFINER, _any_starts("conditioner.embedders.0.model.")),
    (CheckpointKind.SD2, _any_starts("cond_stage_model.model.")),
    (CheckpointKind.SD1, _any_starts("cond_stage_model.transformer.")),
    (CheckpointKind.SDXL_UNET, _any_starts(UNET + "label_emb.")),
    (CheckpointKind.DIFFUSERS_UNET, _any_starts("down_blocks.", "unet.down_blocks.")),
    (CheckpointKind.VAE, _any_starts("decoder.", "encoder.conv_in.", VAE + "decoder.")),
    (CheckpointKind.TEXT_ENCODER, _any_contains("text_model.encoder.", "transformer.resblocks.")),
    (CheckpointKind.EMBEDDING, lambda tensors: {"clip_l", "clip_g"} <= set(tensors)),
    (CheckpointKind.EMBEDDING, _has("emb_params")),
    (CheckpointKind.UNKNOWN, lambda _: True),
)
