"""LoRAs as clients of several servers name them, to `{"name", "weight"}`."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from lpw_sdxl.doors.json_text import parse_json
from lpw_sdxl.errors import InvalidRequestError

_NAMES = ("name", "lora_name", "adapter", "adapter_name")
_PATHS = ("path", "lora_path")
_WEIGHTS = ("weight", "scale", "strength", "lora_scale", "multiplier")
_OWN = "text_encoder_weight"
_SUFFIX = ".safetensors"


def read_loras(value: Any, field: str) -> list[dict[str, Any]]:
    """Read a list of LoRAs, one LoRA alone, a name alone, or either as a text of JSON.

    Args:
        value: of the field.
        field: as the client named it, for refusals.

    Raises:
        InvalidRequestError: a LoRA has no name.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = parse_json(value)
    if isinstance(value, dict) and not value.keys() & {*_NAMES, *_PATHS}:  # weights by names
        value = [{"name": name, "weight": weight} for name, weight in value.items()]
    elements = value if isinstance(value, list) else [value]
    return [_read(element, field) for element in elements]


def _read(element: Any, field: str) -> dict[str, Any]:
    if isinstance(element, str):
        element = {"name": element}
    if not isinstance(element, dict):
        raise InvalidRequestError(
            f"{field} is no LoRA; an object with name and weight is", field=field
        )
    name = next((element[key] for key in _NAMES if element.get(key)), None)
    path = next((element[key] for key in _PATHS if element.get(key)), None)
    if name is None and isinstance(path, str):  # of a file: its LoRA is known by the file's name
        name = PurePosixPath(path.replace("\\", "/")).name.removesuffix(_SUFFIX)
    if not name:
        raise InvalidRequestError(f"{field} has a LoRA without a name", field=field)
    weights = {"weight": next((element[key] for key in _WEIGHTS if key in element), None)}
    weights[_OWN] = element.get(_OWN)
    return {"name": name, **{key: one for key, one in weights.items() if one is not None}}
