"""The fields of A1111's requests, and what each is where a client does not send it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_STEPS, DEFAULT_GUIDANCE, DEFAULT_STRENGTH = 50, 7.0, 0.75

COMMON: Mapping[str, Any] = {
    "prompt": "",
    "negative_prompt": "",
    "styles": [],
    "seed": -1,
    "subseed": -1,
    "subseed_strength": 0.0,
    "seed_resize_from_h": -1,
    "seed_resize_from_w": -1,
    "sampler_name": None,
    "sampler_index": "Euler",
    "scheduler": None,
    "batch_size": 1,
    "n_iter": 1,
    "steps": DEFAULT_STEPS,
    "cfg_scale": DEFAULT_GUIDANCE,
    "width": None,
    "height": None,
    "restore_faces": None,
    "tiling": None,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "eta": None,
    "denoising_strength": DEFAULT_STRENGTH,
    "s_min_uncond": None,
    "s_churn": None,
    "s_tmax": None,
    "s_tmin": None,
    "s_noise": None,
    "override_settings": {},
    "override_settings_restore_afterwards": True,
    "refiner_checkpoint": None,
    "refiner_switch_at": None,
    "disable_extra_networks": False,
    "firstpass_image": None,
    "comments": None,
    "force_task_id": None,
    "infotext": None,
    "script_name": None,
    "script_args": [],
    "send_images": True,
    "save_images": False,
    "alwayson_scripts": {},
}
OF_TEXT: Mapping[str, Any] = {
    "enable_hr": False,
    "firstphase_width": 0,
    "firstphase_height": 0,
    "hr_scale": 2.0,
    "hr_upscaler": None,
    "hr_second_pass_steps": 0,
    "hr_resize_x": 0,
    "hr_resize_y": 0,
    "hr_checkpoint_name": None,
    "hr_sampler_name": None,
    "hr_scheduler": None,
    "hr_prompt": "",
    "hr_negative_prompt": "",
}
OF_PICTURE: Mapping[str, Any] = {
    "init_images": None,
    "resize_mode": 0,
    "image_cfg_scale": None,
    "mask": None,
    "mask_blur_x": 4,
    "mask_blur_y": 4,
    "mask_blur": None,
    "mask_round": True,
    "inpainting_fill": 0,
    "inpaint_full_res": True,
    "inpaint_full_res_padding": 0,
    "inpainting_mask_invert": 0,
    "initial_noise_multiplier": None,
    "latent_mask": None,
    "include_init_images": False,
}
TEXT_FIELDS: Mapping[str, Any] = {**COMMON, **OF_TEXT}
PICTURE_FIELDS: Mapping[str, Any] = {**COMMON, **OF_PICTURE}
"""The fields of txt2img and of img2img."""

OF_OTHERS = (
    *("clip_skip", "lora", "hr_steps", "hr_cfg", "hr_additional_modules"),
    *("hr_distilled_cfg", "distilled_cfg_scale", "image_format"),
)
"""Fields of Forge, SD.Next and stable-diffusion.cpp that are read, or known to have no effect."""

BY_HABIT = (
    *("url", "auth", "model", "use_deprecated_controlnet", "full_quality", "upscaler_scale"),
    *("controlnet_units", "n", "size", "save_to_file", "session_id", "request_id"),
)
"""Fields that clients send to every server, and whose absence here surprises no user."""
