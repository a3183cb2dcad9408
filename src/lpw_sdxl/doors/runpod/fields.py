"""The fields of a job's `input`: our request's, and other names by which old clients send them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.schema import GenerationRequest

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "num_inference_steps": ("num_inference_steps", "steps"),
    "guidance_scale": ("guidance_scale", "cfg_scale", "cfg"),
    "strength": ("strength", "denoising_strength"),
    "mask_image": ("mask_image", "mask"),
    "image_format": ("image_format", "output_format"),
    "loras": ("loras", "lora"),
    "sampler_name": ("sampler_name", "sampler"),
    "num_images": ("num_images", "batch_size", "num_outputs", "num_images_per_prompt"),
}
"""Names of one thing. `scheduler` is none of a sampler: beside one it names a schedule type."""
OPTIONS = ("num_images", "progress", "preview_every")
"""Fields of the job, and of no image."""
SAMPLING = ("sampler_name", "scheduler", "schedule_type", "sampler_implementation")
"""Fields that choose a sampler, together."""
KNOWN = tuple(
    dict.fromkeys(
        (
            *GenerationRequest.model_fields,
            *SAMPLING,
            *(one for group in SPELLINGS.values() for one in group),
            *OPTIONS,
        )
    )
)
_OURS = {one: field for field, group in SPELLINGS.items() for one in group}
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_MAY_BE_EMPTY = ("prompt", "negative_prompt")
_NEAR = 0.75  # of two names, from 0 to 1
_SHOWN_CHARACTERS = 64


class SpelledFields(NamedTuple):
    """The fields of an input by one name each.

    Attributes:
        values: by our names; what is null or empty is left out, but for prompts.
        spelled: the client's name of each.
    """

    values: dict[str, Any]
    spelled: Mapping[str, str]


def read_fields(value: object) -> SpelledFields:
    """Read a job's `input`.

    Raises:
        InvalidRequestError: it is no object, a field is not known, or one thing is there twice.
    """
    if not isinstance(value, dict):
        raise InvalidRequestError(
            'input is no object; one such as {"prompt": "a lighthouse"} would be right',
            field="input",
        )
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for key, one in value.items():
        name = str(key)
        if name not in KNOWN:
            raise _unknown(name)
        if one is None or (name not in _MAY_BE_EMPTY and one in _EMPTY):
            continue
        field = _OURS.get(name, name)
        if field in values and values[field] != one:
            first = spelled[field]
            raise InvalidRequestError(
                f"{name} and {first} are the same and differ; one of them would be right",
                field=name,
            )
        values[field] = one
        spelled.setdefault(field, name)
    return SpelledFields(values, spelled)


def _unknown(name: str) -> InvalidRequestError:
    near = difflib.get_close_matches(name.lower()[:_SHOWN_CHARACTERS], KNOWN, 1, _NEAR)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KNOWN)}"
    shown = name[:_SHOWN_CHARACTERS]
    quoted = shown if shown.isidentifier() else json.dumps(shown)
    return InvalidRequestError(f"{quoted} is not a field of input; {hint}", field=shown)
