"""Fields that clients hide in others: `extra_body`, arguments in the prompt, a size as resolution.

The door of stable-diffusion.cpp's server has no fields for seeds and steps; its clients write them
into the prompt: `<sd_cpp_extra_args>`, an object of JSON, `</sd_cpp_extra_args>`. Drawn as text
they would be another picture than the one that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lpw_sdxl.doors.json_text import parse_json
from lpw_sdxl.doors.openai.fields import Fields, without_empty
from lpw_sdxl.doors.openai.wishes import is_size
from lpw_sdxl.errors import InvalidRequestError

_PROMPT, _EXTRA, _SIZE, _RESOLUTION, _CLIP_SKIP = (
    *("prompt", "extra_body", "size", "resolution", "clip_skip"),
)
_OPENING, _CLOSING = "<sd_cpp_extra_args>", "</sd_cpp_extra_args>"
_NESTED = ("sample_params", "guidance")  # objects whose fields stand for themselves
_NAMES: Mapping[str, str] = {
    "sample_steps": "num_inference_steps",
    "txt_cfg": "guidance_scale",
    "batch_count": "n",
}
_NO_CLIP_SKIP = ("-1", "-1.0")


def unfold(fields: Fields) -> Fields:
    """Return fields with those that stand in others.

    Raises:
        InvalidRequestError: what stands in the prompt is no object of JSON.
    """
    extra = fields.get(_EXTRA)
    if isinstance(extra, dict):
        plain = {name: value for name, value in fields.items() if name != _EXTRA}
        fields = without_empty(extra) | plain
    fields = _with_arguments(fields)
    resolution = fields.get(_RESOLUTION)
    if _SIZE not in fields and isinstance(resolution, str) and is_size(resolution):
        fields = {name: value for name, value in fields.items() if name != _RESOLUTION}
        fields[_SIZE] = resolution
    if str(fields.get(_CLIP_SKIP)) in _NO_CLIP_SKIP:  # as it is written there
        fields = {name: value for name, value in fields.items() if name != _CLIP_SKIP}
    return fields


def _with_arguments(fields: Fields) -> Fields:
    """Take the arguments out of the prompt; they count before fields of the same names.

    Raises:
        InvalidRequestError: as `unfold`.
    """
    prompt = fields.get(_PROMPT)
    if not isinstance(prompt, str) or _OPENING not in prompt:
        return fields
    before, _, rest = prompt.partition(_OPENING)
    text, closing, after = rest.partition(_CLOSING)
    if not closing:
        raise InvalidRequestError(f"prompt has {_OPENING} without {_CLOSING}", field=_PROMPT)
    try:
        arguments = parse_json(text)
    except InvalidRequestError:
        arguments = None
    if not isinstance(arguments, dict):
        message = f"prompt has {_OPENING} with what is no JSON object in it"
        raise InvalidRequestError(message, field=_PROMPT)
    plain = " ".join(part for part in (before.strip(), after.strip()) if part)
    return fields | without_empty(_flatten(arguments)) | {_PROMPT: plain}


def _flatten(arguments: Mapping[str, Any]) -> Fields:
    """Name arguments as fields are named, those of objects among them."""
    fields: Fields = {}
    for name, value in arguments.items():
        if name in _NESTED and isinstance(value, dict):
            fields |= _flatten(value)
        else:
            fields[_NAMES.get(name, name)] = value
    return fields
