"""The kinds of model file in use, distinguished by the names and shapes of their tensors.

A table: the first row whose test holds names the file. Content decides, never the file's name. The
keys are those that ComfyUI, stable-diffusion.cpp, SwarmUI and Diffusers distinguish the models by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from lpw_sdxl.store.command import import_command
from lpw_sdxl.weights.header import TensorInfo

Tensors = Mapping[str, TensorInfo]

UNET = "model.diffusion_model."
EMA = "model_ema."
VAE = "first_stage_model."
CONDITIONER = "conditioner.embedders."
FIRST_ENCODER = "conditioner.embedders.0.transformer.text_model."
POSITION_IDS = FIRST_ENCODER + "embeddings.position_ids"
"""A tensor of checkpoints that holds no weights, only the numbers 0 to 76."""
SECOND_ENCODER = "conditioner.embedders.1.model."
SECOND_ENCODER_TRANSFORMERS = "conditioner.embedders.1.transformer."
"""The second text encoder where its tensors have Transformers' names and not OpenCLIP's."""

_ADVICE = "an SDXL base checkpoint (or a fine-tune of it) is needed"
_PART_ADVICE = "import the SDXL checkpoint that it belongs to"


class CheckpointKind(Enum):
    """A kind of file: its name in a sentence, and what to do with it instead of importing it."""

    SDXL = ("an SDXL checkpoint", "")
    SDXL_INPAINTING = ("an SDXL inpainting checkpoint", "")
    SDXL_EDITING = ("an SDXL checkpoint whose UNet takes neither 4 nor 9 channels", _ADVICE)
    SDXL_QUANTISED = (
        "a checkpoint quantised with scales of its own (scaled fp8, int8 or 4 bits)",
        "bring its fp16, bf16, fp32 or plain fp8 version",
    )
    SDXL_REFINER = ("an SDXL refiner", _ADVICE)
    SDXL_PRUNED = ("a pruned SDXL (SSD-1B or Segmind Vega)", _ADVICE)
    SDXL_UNET = (
        "an SDXL UNet without its two text encoders",
        "bring the full checkpoint, with text encoders and VAE",
    )
    SDXL_CPP = (
        "an SDXL checkpoint in stable-diffusion.cpp's layout",
        "bring the checkpoint that it was made from",
    )
    PLAYGROUND = ("a Playground 2.5 checkpoint (EDM noise schedule)", _ADVICE)
    COSXL = ("a CosXL checkpoint (EDM v-prediction)", _ADVICE)
    KOLORS = ("a Kolors checkpoint", _ADVICE)
    SD1 = ("a Stable Diffusion 1.x checkpoint", _ADVICE)
    SD2 = ("a Stable Diffusion 2.x checkpoint", _ADVICE)
    SD3 = ("a Stable Diffusion 3 checkpoint", _ADVICE)
    VIDEO_DIFFUSION = ("a Stable Video Diffusion checkpoint", _ADVICE)
    CASCADE = ("a Stable Cascade checkpoint", _ADVICE)
    FLUX = ("a Flux checkpoint", _ADVICE)
    CHROMA = ("a Chroma checkpoint", _ADVICE)
    HUNYUAN = ("a Hunyuan checkpoint", _ADVICE)
    PIXART = ("a PixArt checkpoint", _ADVICE)
    AURAFLOW = ("an AuraFlow checkpoint", _ADVICE)
    LUMINA = ("a Lumina or Z-Image checkpoint", _ADVICE)
    QWEN_IMAGE = ("a Qwen-Image checkpoint", _ADVICE)
    WAN = ("a Wan video checkpoint", _ADVICE)
    LTX = ("an LTX video checkpoint", _ADVICE)
    LORA = ("a LoRA", "import it with `{import_command} lora FILE`")
    EMBEDDING = (
        "a textual inversion embedding",
        "import it with `{import_command} embedding FILE`",
    )
    CONTROLNET = ("a ControlNet", _ADVICE)
    IP_ADAPTER = ("an IP-Adapter", _ADVICE)
    T2I_ADAPTER = ("a T2I-Adapter", _ADVICE)
    MOTION_MODULE = ("an AnimateDiff motion module", _ADVICE)
    UPSCALER = ("an upscaler", "import it with `{import_command} upscaler FILE`")
    DIFFUSERS_UNET = (
        "a UNet in Diffusers' layout",
        "bring the single-file checkpoint it was taken from",
    )
    VAE = ("a VAE alone", f"{_PART_ADVICE}; --vae FILE puts this VAE in it")
    SMALL_VAE = ("a TAESD, a small stand-in for a VAE", _PART_ADVICE)
    TEXT_ENCODER = ("a text encoder alone", _PART_ADVICE)
    IMAGE_ENCODER = ("a CLIP image encoder", _ADVICE)
    UNKNOWN = ("no model that we know", _ADVICE)

    @property
    def title(self) -> str:
        """Return its name with its article."""
        return self.value[0]

    @property
    def advice(self) -> str:
        """Return what would be right instead; empty for what `checkpoint` imports."""
        return self.value[1].replace("{import_command}", import_command())

    @property
    def is_served(self) -> bool:
        """Return whether `checkpoint` imports it."""
        return not self.value[1]


def kind_of(tensors: Tensors, metadata: Mapping[str, str]) -> CheckpointKind:
    """Return the kind of the file that holds these tensors and notes."""
    if QUANTISATION_NOTE in metadata:
        return CheckpointKind.SDXL_QUANTISED
    return next(kind for kind, holds in _KINDS if holds(tensors))


QUANTISATION_NOTE = "_quantization_metadata"
"""ComfyUI's note of how each layer was quantised."""

Test = Callable[[Tensors], bool]


def _starts(*prefixes: str) -> Test:
    return lambda tensors: any(name.startswith(prefixes) for name in tensors)


def _ends(*suffixes: str) -> Test:
    return lambda tensors: any(name.endswith(suffixes) for name in tensors)


def _contains(*parts: str) -> Test:
    return lambda tensors: any(part in name for name in tensors for part in parts)


def _has(*keys: str) -> Test:
    return lambda tensors: any(key in tensors for key in keys)


def _all(*tests: Test) -> Test:
    return lambda tensors: all(test(tensors) for test in tests)


def _not(test: Test) -> Test:
    return lambda tensors: not test(tensors)


def _takes(holds: Callable[[int], bool]) -> Test:
    """Test a UNet's number of input channels: 4 of latents, 9 with a mask and a masked picture."""

    def test(tensors: Tensors) -> bool:
        entry = tensors.get(UNET + "input_blocks.0.0.weight")
        return entry is not None and len(entry.shape) == 4 and holds(entry.shape[1])

    return test


_IS_SDXL = _all(_starts(SECOND_ENCODER, SECOND_ENCODER_TRANSFORMERS), _starts(UNET, EMA))
_HAS_SIZE_EMBEDDING = _contains("label_emb.0.0.")

# Narrow tests first: a LoRA's names contain those of the model it belongs to, and later models have
# taken over names of earlier ones.
_KINDS: tuple[tuple[CheckpointKind, Test], ...] = (
    (
        CheckpointKind.LORA,
        _contains(
            "lora_up", "lora_down", "lora_A", "lora_B", "lora.up", "lora.down", "lora_linear"
        ),
    ),
    (
        CheckpointKind.LORA,
        _contains("hada_w1", "hada_w2", "lokr_w", "oft_blocks", "oft_diag", "oft_R", "dora_scale"),
    ),
    (CheckpointKind.LORA, _starts("lora_unet_", "lora_te", "lycoris_", "lora_prior_")),
    # A full difference, in whatever names its modules have.
    (CheckpointKind.LORA, _ends(".diff", ".diff_b", ".w_norm", ".b_norm")),
    (CheckpointKind.CONTROLNET, _starts("lllite_", "lora_controlnet", "controlnet_")),
    (
        CheckpointKind.CONTROLNET,
        _contains("control_model.", "controlnet_cond_embedding", "input_hint_block"),
    ),
    (CheckpointKind.IP_ADAPTER, _starts("ip_adapter.", "image_proj.")),
    (CheckpointKind.T2I_ADAPTER, _starts("adapter.body.")),
    (CheckpointKind.MOTION_MODULE, _contains("motion_modules.")),
    (
        CheckpointKind.SDXL_QUANTISED,
        _ends(
            ".scale_weight",
            ".scale_input",
            ".weight_scale",
            ".weight_scale_2",
            ".input_scale",
            ".comfy_quant",
            "scaled_fp8",
            ".absmax",
            ".quant_map",
            ".qweight",
            ".SCB",
        ),
    ),
    (CheckpointKind.SDXL_QUANTISED, _contains(".quant_state.")),
    (CheckpointKind.CHROMA, _contains("distilled_guidance_layer.")),
    (
        CheckpointKind.HUNYUAN,
        _contains("individual_token_refiner.", "byt5_in.", "mlp_t5.0.", "latent_in."),
    ),
    (
        CheckpointKind.FLUX,
        _contains("double_blocks.", "single_transformer_blocks.", "double_stream_modulation_img."),
    ),
    (CheckpointKind.AURAFLOW, _contains("double_layers.0.", "joint_transformer_blocks.")),
    (CheckpointKind.SD3, _contains("joint_blocks.")),
    (CheckpointKind.LTX, _contains("patchify_proj.")),
    (CheckpointKind.PIXART, _contains("t_block.1.weight", "adaln_single.emb.")),
    (CheckpointKind.LUMINA, _contains("noise_refiner.", "cap_embedder.")),
    (CheckpointKind.QWEN_IMAGE, _contains("transformer_blocks.0.img_mod.")),
    (CheckpointKind.WAN, _ends("head.modulation")),
    (CheckpointKind.CASCADE, _contains("clip_txt_mapper.", "clip_mapper.", "vquantizer.")),
    (CheckpointKind.VIDEO_DIFFUSION, _contains(".time_stack.", ".time_mixer.")),
    (CheckpointKind.KOLORS, _contains("encoder_hid_proj.weight")),
    (CheckpointKind.PLAYGROUND, _has("edm_mean", "edm_std")),
    (CheckpointKind.COSXL, _starts("edm_vpred.")),
    (CheckpointKind.SDXL_INPAINTING, _all(_IS_SDXL, _takes(lambda channels: channels == 9))),
    (CheckpointKind.SDXL_EDITING, _all(_IS_SDXL, _takes(lambda channels: channels != 4))),
    (
        CheckpointKind.SDXL_PRUNED,
        _all(
            _IS_SDXL,
            _starts(UNET + "middle_block.0."),
            _not(_starts(UNET + "middle_block.1.")),
        ),
    ),
    (CheckpointKind.SDXL, _IS_SDXL),
    # Stability's code has SD 2.1 Turbo's only encoder at the same place as the refiner's.
    (
        CheckpointKind.SDXL_REFINER,
        _all(_starts("conditioner.embedders.0.model."), _HAS_SIZE_EMBEDDING),
    ),
    (CheckpointKind.SD2, _starts("cond_stage_model.model.", "conditioner.embedders.0.model.")),
    (CheckpointKind.SDXL_CPP, _starts("cond_stage_model.1.")),
    (CheckpointKind.SD1, _starts("cond_stage_model.transformer.")),
    (
        CheckpointKind.SDXL_UNET,
        _all(_HAS_SIZE_EMBEDDING, _starts(UNET, "input_blocks.", "label_emb.")),
    ),
    (CheckpointKind.DIFFUSERS_UNET, _starts("down_blocks.", "unet.down_blocks.")),
    (CheckpointKind.SMALL_VAE, _has("decoder.layers.1.weight", "encoder.layers.0.weight")),
    (CheckpointKind.SMALL_VAE, _starts("taesd_")),
    (
        CheckpointKind.VAE,
        _has("decoder.conv_in.weight", "encoder.conv_in.weight", VAE + "decoder.conv_in.weight"),
    ),
    (CheckpointKind.IMAGE_ENCODER, _starts("vision_model.", "visual.", "visual_projection.")),
    (
        CheckpointKind.TEXT_ENCODER,
        _contains("text_model.encoder.", "transformer.resblocks.", "encoder.block.0.layer.0."),
    ),
    (
        CheckpointKind.EMBEDDING,
        _has("clip_l", "clip_g", "text_encoders_0", "text_encoders_1", "emb_params"),
    ),
    (
        CheckpointKind.UPSCALER,
        _has("model.0.weight", "conv_first.weight", "body.0.rdb1.conv1.weight"),
    ),
    (CheckpointKind.UPSCALER, _all(_has("body.0.weight"), _has("body.1.weight"))),
    (CheckpointKind.UNKNOWN, lambda _: True),
)
