"""Our images as A1111's answers: `images`, `parameters`, and `info`, which is JSON in a text."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl import __version__
from lpw_sdxl.doors.a1111.making import DrawnImage
from lpw_sdxl.doors.a1111.order import ImageOrder
from lpw_sdxl.doors.a1111.served_model import ServedModel
from lpw_sdxl.imaging.record import parameters_pairs, parameters_text
from lpw_sdxl.schema import GenerationRequest

VERSION = f"LPW-SDXL {__version__}"
_MAIN_KEYS = ("Steps", "Sampler", "CFG scale", "Seed", "Size", "Model hash", "Model", "Version")
_PICTURES = ("init_images", "mask")


@with_config(extra="forbid")
class ImagesAnswer(TypedDict):
    """The images of one request."""

    images: Annotated[list[str], Field(description="Files in base64, without a data URL's head.")]
    parameters: Annotated[dict[str, Any], Field(description="The request's fields, and defaults.")]
    info: Annotated[
        str,
        Field(
            description="JSON: `all_seeds`, `infotexts` and what else A1111 states of the images."
        ),
    ]


def write_answer(
    order: ImageOrder,
    images: Sequence[DrawnImage],
    requests: Sequence[GenerationRequest],
    model: ServedModel,
) -> bytes:
    """Write the answer for some images, an `ImagesAnswer`; CPU work of milliseconds each.

    Args:
        order: of the images.
        images: that were made.
        requests: of all images that were to be made, at least one.
        model: that is served.
    """
    info = json.dumps(describe_images(order, images, requests, model))
    parameters = dict(order.echo)
    if not order.sends_pictures:
        parameters |= {name: None for name in _PICTURES if name in parameters}
    # `json` would look at each letter of the base64 for what has to be escaped.
    files = [base64.b64encode(one.content) for one in images] if order.sends_images else []
    quoted = [piece for file in files for piece in (b'"', file, b'", ')]
    if quoted:
        quoted[-1] = b'"'
    rest = json.dumps({"parameters": parameters, "info": info}).encode()[1:]
    return b"".join([b'{"images": [', *quoted, b"], ", rest])


def describe_images(
    order: ImageOrder,
    images: Sequence[DrawnImage],
    requests: Sequence[GenerationRequest],
    model: ServedModel,
) -> dict[str, Any]:
    """Describe images as A1111's `info` does; none of its values is null.

    Args:
        order: of the images.
        images: that were made; of none, what was to be made is described.
        requests: of all that were to be made.
        model: that is served.
    """
    request = order.request
    made = [(one.record.seed, one.record.variation_seed) for one in images]
    made = made or [(one.seed or 0, one.variation_seed) for one in requests]
    seeds = [seed for seed, _ in made]
    unused = -1 if order.subseed is None else order.subseed
    subseeds = [unused if subseed is None else subseed for _, subseed in made]
    record = images[0].record if images else None
    width, height = order.echo["width"], order.echo["height"]
    if record is not None:
        height, width = record.size
    return {
        "prompt": request.prompt,
        "all_prompts": [request.prompt] * len(made),
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [request.negative_prompt] * len(made),
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": subseeds[0],
        "all_subseeds": subseeds,
        "subseed_strength": request.variation_strength,
        "width": width,
        "height": height,
        "sampler_name": str(request.scheduler),
        "cfg_scale": request.guidance_scale,
        "steps": request.num_inference_steps,
        "batch_size": order.batch_size,
        "restore_faces": False,
        "face_restoration_model": "",
        "sd_model_name": model.name,
        "sd_model_hash": model.short_hash,
        "sd_vae_name": "",
        "sd_vae_hash": "",
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": request.hires.strength if request.hires else request.strength,
        "extra_generation_params": {**_extra_pairs(images), **order.notes},
        "index_of_first_image": 0,
        "infotexts": [parameters_text(one.record) for one in images],
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S"),
        "clip_skip": order.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": VERSION,
    }


def _extra_pairs(images: Sequence[DrawnImage]) -> Mapping[str, str]:
    """Return the pairs of the first image's text that have no key of their own."""
    if not images:
        return {}
    pairs = parameters_pairs(images[0].record)
    return {key: value for key, value in pairs.items() if key not in _MAIN_KEYS}
