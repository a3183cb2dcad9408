"""The fields of our requests by A1111's names, for refusals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from lpw_sdxl.errors import RequestError

RefusalT = TypeVar("RefusalT", bound=RequestError)

_NAMES: Mapping[str, str] = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "scheduler": "sampler_name",
    "schedule_type": "scheduler",
    "eta_noise_seed_delta": "override_settings.eta_noise_seed_delta",
    "variation_seed": "subseed",
    "variation_strength": "subseed_strength",
    "clip_skip": "override_settings.CLIP_stop_at_last_layers",
    "image_format": "override_settings.samples_format",
    "request_id": "force_task_id",
    "image": "init_images",
    "strength": "denoising_strength",
    "mask_image": "mask",
    "invert_mask": "inpainting_mask_invert",
    "masked_content": "inpainting_fill",
    "only_masked": "inpaint_full_res",
    "only_masked_padding": "inpaint_full_res_padding",
    "loras": "lora",
    "hires": "enable_hr",
    "hires.scale": "hr_scale",
    "hires.width": "hr_resize_x",
    "hires.height": "hr_resize_y",
    "hires.steps": "hr_second_pass_steps",
    "hires.strength": "denoising_strength",
    "hires.upscaler": "hr_upscaler",
    "hires.prompt": "hr_prompt",
    "hires.negative_prompt": "hr_negative_prompt",
    "hires.guidance_scale": "hr_cfg",
    "hires.scheduler": "hr_sampler_name",
    "hires.schedule_type": "hr_scheduler",
}
_LONGEST_FIRST = sorted(_NAMES, key=len, reverse=True)
# Names that no sentence has by chance.
_ANYWHERE = re.compile("|".join(re.escape(one) for one in _LONGEST_FIRST if re.search("[_.]", one)))


def spell(refusal: RefusalT) -> RefusalT:
    """Name the fields of a refusal as A1111's clients do; the refusal is changed."""
    field, message = refusal.field, refusal.message
    if field is not None:
        name = next(
            (one for one in sorted(_NAMES, key=len, reverse=True) if _begins(field, one)), ""
        )
        if name and _begins(message, name):
            refusal.message = _NAMES[name] + _inside(message[len(name) :])
        else:
            refusal.message = _inside(message)
        if name:
            refusal.field = _NAMES[name] + field[len(name) :]
    return refusal


def _inside(text: str) -> str:
    return _ANYWHERE.sub(lambda found: _NAMES[found[0]], text)


def _begins(text: str, name: str) -> bool:
    """Return whether a text begins with a whole name."""
    return text.startswith(name) and not re.match(r"\w", text[len(name) :])
