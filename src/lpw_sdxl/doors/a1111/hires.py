"""The second pass of A1111's requests (`enable_hr`), to `hires` of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lpw_sdxl.doors.a1111.known_fields import DEFAULT_STRENGTH
from lpw_sdxl.doors.a1111.loose_fields import LooseFields
from lpw_sdxl.doors.a1111.sampling import read_sampling
from lpw_sdxl.doors.a1111.served_model import ServedModel
from lpw_sdxl.doors.a1111.settings_overrides import check_model, check_modules
from lpw_sdxl.doors.a1111.sizes import round_down
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.second_pass import DEFAULT_SCALE, Upscaler

_SAME = "use same"


def read_hires(
    fields: LooseFields, model: ServedModel, native: Mapping[str, Any], size: ImageSize
) -> dict[str, Any]:
    """Read the second pass; without it, its fields are not read at all.

    Args:
        fields: of the request.
        model: that is served.
        native: the fields of our request, its sampler among them.
        size: of the request.

    Returns:
        The fields of our request: none where nothing is said; `hires`, and the size where the
        client names that of the first pass in A1111's old way.

    Raises:
        InvalidRequestError: a field is wrong, or asks for what is not done here.
    """
    is_wanted = fields.flag("enable_hr")
    if not is_wanted:
        return {} if is_wanted is None else {"hires": None}
    _check(fields, model)
    second: dict[str, Any] = {
        "strength": _given(fields.number("denoising_strength"), DEFAULT_STRENGTH),
        "upscaler": fields.text("hr_upscaler") or str(Upscaler.LATENT),
        "steps": _given(fields.whole("hr_second_pass_steps"), fields.whole("hr_steps")) or None,
        "prompt": fields.text("hr_prompt"),
        "negative_prompt": fields.text("hr_negative_prompt"),
        "guidance_scale": fields.number("hr_cfg"),
        **{name: _text(one) for name, one in read_sampling(fields, native, "hr_").items()},
    }
    first = _old_size(fields)
    if first:
        return {"hires": second | size._asdict(), **first}
    return {"hires": second | _size(fields)}


def _check(fields: LooseFields, model: ServedModel) -> None:
    checkpoint = fields.text("hr_checkpoint_name") or ""
    if not checkpoint.lower().startswith((_SAME, "none")):
        check_model(fields, "hr_checkpoint_name", model)
    check_modules(fields, "hr_additional_modules")


def _size(fields: LooseFields) -> dict[str, Any]:
    """Read the size: one side or both, or else a scale."""
    width, height = (round_down(fields.whole(f"hr_resize_{side}") or 0) for side in ("x", "y"))
    if width or height:
        return {"width": width or None, "height": height or None}
    return {"scale": _given(fields.number("hr_scale"), DEFAULT_SCALE)}


def _old_size(fields: LooseFields) -> dict[str, Any]:
    """Read the first pass's size in A1111's old way: `width` and `height` are the second's.

    Raises:
        InvalidRequestError: one side is missing.
    """
    sides = {side: fields.whole(f"firstphase_{side}") or 0 for side in ("width", "height")}
    if not any(sides.values()):
        return {}
    for side, pixels in sides.items():
        if not pixels:
            raise fields.refuse(f"firstphase_{side}", "is missing beside the other side")
    return {side: round_down(pixels) for side, pixels in sides.items()}


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
