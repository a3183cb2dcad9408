"""A1111's options: they are read by many clients, and setting them changes nothing here.

There, they are settings of the whole server; here each request states its own. What is listed is
what holds where a request states nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.endpoints import Backend, Call, Payload, take_request
from lpw_sdxl.doors.a1111.answering import answer_json
from lpw_sdxl.doors.a1111.bodies import read_object
from lpw_sdxl.doors.a1111.served_model import ServedModel
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging.files import LOSSY_OPTIONS
from lpw_sdxl.schema import ImageFormat

logger = logging.getLogger(__name__)

CHECKPOINT, CHECKPOINT_HASH = "sd_model_checkpoint", "sd_checkpoint_hash"
_FIXED: Mapping[str, Any] = {
    # Of texts.
    "CLIP_stop_at_last_layers": 1,
    "sdxl_clip_l_skip": False,
    "emphasis": "Original",
    "comma_padding_backtrack": 20,
    "enable_prompt_comments": True,
    "enable_batch_seeds": True,
    # Of models and add-ons.
    "sd_vae": "Automatic",
    "sd_unet": "Automatic",
    "sd_hypernetwork": "None",
    "sd_lora": "None",
    "sd_checkpoints_limit": 1,
    "extra_networks_default_multiplier": 1.0,
    "lora_functional": False,
    "textual_inversion_add_hashes_to_infotext": True,
    "sdxl_crop_top": 0,
    "sdxl_crop_left": 0,
    "upcast_attn": False,
    "fp8_storage": "Disable",
    "token_merging_ratio": 0.0,
    "token_merging_ratio_hr": 0.0,
    "token_merging_ratio_img2img": 0.0,
    "s_min_uncond": 0.0,
    # Of samplers.
    "randn_source": "NV",
    "eta_noise_seed_delta": 0,
    "eta_ancestral": 1.0,
    "eta_ddim": 0.0,
    "ddim_discretize": "uniform",
    "k_sched_type": "Automatic",
    "s_churn": 0.0,
    "s_tmin": 0.0,
    "s_tmax": 0.0,
    "s_noise": 1.0,
    "sd_noise_schedule": "Default",
    "always_discard_next_to_last_sigma": False,
    "sgm_noise_multiplier": False,
    "skip_early_cond": 0.0,
    "use_old_karras_scheduler_sigmas": False,
    "use_old_scheduling": False,
    # Of pictures.
    "img2img_background_color": "#ffffff",
    "img2img_color_correction": False,
    "img2img_fix_steps": False,
    "initial_noise_multiplier": 1.0,
    "inpainting_mask_weight": 1.0,
    "overlay_inpaint": True,
    "img2img_extra_noise": 0.0,
    # Of what follows.
    "upscaler_for_img2img": "None",
    "face_restoration": False,
    "face_restoration_model": "None",
    "tiling": False,
    "samples_save": False,
    "samples_format": "png",
    "grid_save": False,
    "return_grid": False,
    "return_mask": False,
    "return_mask_composite": False,
    "do_not_show_images": False,
    "enable_pnginfo": True,
    "save_txt": False,
    "add_model_hash_to_info": True,
    "add_model_name_to_info": True,
    "add_version_to_infotext": True,
    "save_images_add_number": True,
    "jpeg_quality": LOSSY_OPTIONS[ImageFormat.JPEG]["quality"],
    "webp_lossless": False,
    # Of progress.
    "live_previews_enable": True,
    "live_previews_image_format": "jpeg",
    "live_preview_content": "Combined",
    "live_preview_refresh_period": 1000.0,
    "show_progress_every_n_steps": 1,
    "show_progress_type": "Approx cheap",
    "show_progress_grid": False,
    "api_enable_requests": False,
}


@dataclass(frozen=True)
class NewOptions:
    """Options that a client sets.

    Attributes:
        checkpoint: the model's name; None where it is none of them.
        count: of all.
    """

    checkpoint: str | None
    count: int


def list_options(model: ServedModel) -> dict[str, Any]:
    """List the options that hold here; the model's is never null, as clients fail by that."""
    return {CHECKPOINT: model.title, CHECKPOINT_HASH: model.sha256, **_FIXED}


def parse_options(payload: Payload) -> NewOptions:
    """Read the options that a client sets; only the model's name has a meaning here.

    Raises:
        InvalidRequestError: the body is no JSON object, or the model's name no text.
    """
    fields = read_object(payload.content)
    name = fields.get(CHECKPOINT)
    if name is not None and not isinstance(name, str):
        raise InvalidRequestError(
            f"{CHECKPOINT} is no text; a name of {_LIST} would be right", field=CHECKPOINT
        )
    return NewOptions((name or "").strip() or None, len(fields))


@dataclass(frozen=True)
class OptionSetter:
    """The answer to clients that set options.

    Attributes:
        model: that is served.
    """

    model: ServedModel

    async def answer(self, _call: Call, request: Request, _backend: Backend) -> Response:
        """Refuse another model; change nothing.

        Raises:
            InvalidRequestError: the model is another one.
        """
        options = take_request(request.scope, NewOptions)
        if options.checkpoint is not None and not self.model.is_named(options.checkpoint):
            raise InvalidRequestError(
                f"{CHECKPOINT} is no model of this server, which serves {self.model.title!r} and"
                " keeps it",
                field=CHECKPOINT,
            )
        logger.info("%d options came; they are read, and change nothing", options.count)
        return answer_json(None)


_LIST = "/sdapi/v1/sd-models"
