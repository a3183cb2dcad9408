"""`override_settings`: options of A1111 for one request, those that change a picture.

Of these an option is done here, or it is refused unless it has A1111's own default. Any other is
ignored, as A1111 ignores options that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lpw_sdxl.doors.a1111.loose_fields import LooseFields
from lpw_sdxl.doors.a1111.served_model import ServedModel
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.prompt.grammar import PromptStyle
from lpw_sdxl.sampling_options import NoiseSource
from lpw_sdxl.schema import ImageFormat

CLIP_SKIP, SEED_DELTA = "CLIP_stop_at_last_layers", "eta_noise_seed_delta"
CHECKPOINT, CHECKPOINT_HASH = "sd_model_checkpoint", "sd_checkpoint_hash"
FORMAT, QUALITY = "samples_format", "jpeg_quality"
MODULES = "forge_additional_modules"
SDXL_CLIP_SKIP = 2  # in A1111's count: the layer that SDXL's is; 1 is read as the same
BEST_QUALITY = 95  # of a JPEG; above it only the file grows

_NO_MODULE = ("automatic", "none", "built in", "use same choices", "default")
_FORMATS: Mapping[str, ImageFormat] = {
    **{str(one): one for one in ImageFormat},
    "jpg": ImageFormat.JPEG,
}
_STYLES: Mapping[str, PromptStyle] = {
    "original": PromptStyle.A1111_ORIGINAL,
    "no norm": PromptStyle.A1111,
}
_SOURCES: Mapping[str, NoiseSource] = {
    "gpu": NoiseSource.NV,  # an NVIDIA card's numbers, which NV draws on a CPU
    "nv": NoiseSource.NV,
    "cpu": NoiseSource.CPU,
}
_NOT_DONE: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "sd_vae": (("automatic", "none"), "the VAE is the served model's own"),
    "sd_hypernetwork": (("none",), "hypernetworks are not served"),
    "face_restoration": ((0,), "faces are not restored"),
    "tiling": ((0,), "the picture's edges are not joined"),
    "img2img_fix_steps": ((0,), "denoising_strength leaves a share of the steps"),
    "img2img_color_correction": ((0,), "colours are not corrected"),
    "img2img_extra_noise": ((0,), "no noise is added to a picture beside the sampler's"),
    "img2img_background_color": (("#ffffff",), "transparency is put on white"),
    "upscaler_for_img2img": (("none", "lanczos"), "pictures are resized by Lanczos"),
    "initial_noise_multiplier": ((1,), "the noise is not scaled"),
    "inpainting_mask_weight": ((1,), "an inpainting model sees its mask in full"),
    "overlay_inpaint": ((1,), "what a mask keeps is put back"),
    "comma_padding_backtrack": ((20,), "prompts are cut at a comma among the last 20 tokens"),
    "enable_prompt_comments": ((1,), "comments are left out of prompts"),
    "pad_cond_uncond": ((0,), "prompts keep their own lengths"),
    "pad_cond_uncond_v0": ((0,), "prompts keep their own lengths"),
    "token_merging_ratio": ((0,), "tokens are not merged"),
    "token_merging_ratio_img2img": ((0,), "tokens are not merged"),
    "token_merging_ratio_hr": ((0,), "tokens are not merged"),
    "skip_early_cond": ((0,), "all steps are guided"),
    "sgm_noise_multiplier": ((0,), "the start is the noise times the first sigma"),
    "always_discard_next_to_last_sigma": ((0,), "only A1111's own samplers for it leave one out"),
    "sd_noise_schedule": (("default",), "a model's noise schedule is fixed by its import"),
    "k_sched_type": (("automatic",), "a request names its own schedule type, as scheduler"),
    "sigma_min": ((0,), "schedules have the model's own sigmas"),
    "sigma_max": ((0,), "schedules have the model's own sigmas"),
    "rho": ((0, 7), "schedules have A1111's own rho"),
    "beta_dist_alpha": ((0.6,), "the Beta schedule has A1111's defaults"),
    "beta_dist_beta": ((0.6,), "the Beta schedule has A1111's defaults"),
    "ddim_discretize": (("uniform",), "DDIM has uniform timesteps"),
    "uni_pc_variant": (("bh1",), "UniPC is A1111's default"),
    "uni_pc_skip_type": (("time_uniform",), "UniPC is A1111's default"),
    "uni_pc_order": ((3,), "UniPC is A1111's default"),
    "uni_pc_lower_order_final": ((1,), "UniPC is A1111's default"),
    "sdxl_crop_top": ((0,), "nothing is cropped"),
    "sdxl_crop_left": ((0,), "nothing is cropped"),
    "sd_vae_decode_method": (("full",), "the VAE decodes in full"),
    "sd_vae_encode_method": (("full",), "the VAE encodes in full"),
    "sd_lora": (("none",), "LoRAs are named by tags of the prompt"),
    "extra_networks_default_multiplier": ((1,), "a LoRA's tag has its own weight"),
    "hires_fix_refiner_pass": (("second pass",), "there is no refiner"),
    "use_old_emphasis_implementation": ((0,), "weights act as they do since A1111 1.0"),
    "use_old_karras_scheduler_sigmas": ((0,), "Karras' sigmas are the model's own"),
    "use_old_hires_fix_width_height": ((0,), "hr_resize_x and hr_resize_y name the larger size"),
    "use_old_scheduling": ((0,), "steps of a prompt are counted as A1111 does since 1.6"),
}
"""Options that change a picture and are not done: the values that ask for nothing, and why."""


@dataclass(frozen=True)
class SettingsOverrides:
    """The options of one request.

    Attributes:
        fields: as they were sent.
    """

    fields: LooseFields

    @classmethod
    def read(cls, fields: LooseFields, model: ServedModel) -> SettingsOverrides:
        """Read the options of a request, and refuse those that ask for another picture.

        Raises:
            InvalidRequestError: one does, or is no such option's value.
        """
        settings = fields.inner("override_settings")
        for name in (CHECKPOINT, CHECKPOINT_HASH):
            check_model(settings, name, model)
        check_modules(settings, MODULES)
        for name, (fine, reason) in _NOT_DONE.items():
            if name in settings and not _is_one_of(settings.values[name], fine):
                raise settings.refuse(name, f"is not done here: {reason}; {fine[0]} would be right")
        return cls(settings)

    @property
    def clip_skip(self) -> int | None:
        """Return the layer of the text encoders in A1111's count; None where none is named."""
        return self.fields.whole(CLIP_SKIP)

    @property
    def quality(self) -> int | None:
        """Return the quality of a JPEG or WebP, 1 to 95; None for our own."""
        quality = self.fields.whole(QUALITY)
        return None if quality is None else min(max(1, quality), BEST_QUALITY)

    def native(self) -> dict[str, Any]:
        """Return the options that are fields of our request."""
        found: dict[str, Any] = {}
        if (delta := self.fields.whole(SEED_DELTA)) is not None:
            found["eta_noise_seed_delta"] = delta
        for name, field, names in (
            (FORMAT, "image_format", _FORMATS),
            ("emphasis", "prompt_style", _STYLES),
            ("randn_source", "noise_source", _SOURCES),
        ):
            if (text := self.fields.text(name)) is not None:
                found[field] = self._find(name, text, names)
        return found

    def _find(self, name: str, text: str, names: Mapping[str, Any]) -> Any:
        value = names.get(text.strip().lower())
        if value is None:
            raise self.fields.refuse(name, f"is not served; {', '.join(names)} would be right")
        return value


def check_model(fields: LooseFields, name: str, model: ServedModel) -> None:
    """Refuse a field that names another model than the served one.

    Raises:
        InvalidRequestError: it does; the served model is named.
    """
    text = fields.text(name)
    if text is not None and not model.is_named(text):
        raise fields.refuse(name, f"is not the served model; {model.title!r} is")


def check_modules(fields: LooseFields, name: str) -> None:
    """Refuse another VAE or text encoder, which Forge calls modules.

    Raises:
        InvalidRequestError: one is named.
    """
    modules = fields.texts(name)
    if any(one.strip().lower() not in _NO_MODULE for one in modules):
        raise fields.refuse(name, "is not done here: VAE and text encoders are the model's own")


def clip_skip_of(count: int | None) -> int | None:
    """Convert A1111's count of the text encoders' layers to ours; None for SDXL's own layer."""
    return None if count is None or count <= SDXL_CLIP_SKIP else count - SDXL_CLIP_SKIP


def _is_one_of(value: Any, fine: tuple[Any, ...]) -> bool:
    """Compare a value with right ones, texts in any case, and numbers also where they are texts."""
    if isinstance(value, list | dict):
        return not value
    read = LooseFields({"value": value})
    for right in fine:
        try:
            if isinstance(right, str):
                is_right = str(value).strip().lower() == right
            elif isinstance(right, int) and right in (0, 1):
                is_right = _switch(read) == right
            else:
                is_right = read.number("value") == right
        except InvalidRequestError:
            continue
        if is_right:
            return True
    return False


def _switch(read: LooseFields) -> float | None:
    """Return 0 and 1 of a boolean in any spelling, too."""
    try:
        return read.flag("value")
    except InvalidRequestError:
        return read.number("value")
