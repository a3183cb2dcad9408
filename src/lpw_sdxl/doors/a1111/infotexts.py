"""A1111's `infotext` of a request: what it says holds where the request itself says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lpw_sdxl.doors.a1111.loose_fields import LooseFields
from lpw_sdxl.doors.a1111.pictures import CONTENTS
from lpw_sdxl.doors.a1111.served_model import SHORT_DIGITS, ServedModel
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.parameters import WrittenParameters, read_text, to_request
from lpw_sdxl.parameters.request import most_characters
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schema import MaskedContent

FIELD = "infotext"
_FAMILY = ("prompt_style", "sampler_implementation", "noise_source", "timestep_rounding")
_STRENGTH = "denoising strength"
_MISSING = "missing"  # the name of a note that does not matter: A1111's own defaults are taken


@dataclass(frozen=True)
class Infotext:
    """A text, read.

    Attributes:
        native: the fields of our request that it says.
        picture: A1111's fields about a picture that it says.
        not_honoured: names of what it says and a request can't have.
    """

    native: dict[str, Any] = field(default_factory=dict)
    picture: Mapping[str, Any] = field(default_factory=dict)
    not_honoured: tuple[str, ...] = ()


def read_infotext(
    fields: LooseFields, model: ServedModel, limits: RequestLimits, *, is_picture: bool
) -> Infotext:
    """Read the text of a request; nothing where there is none.

    Args:
        fields: of the request.
        model: that is served.
        limits: of this server.
        is_picture: whether the request has pictures of its own.

    Raises:
        InvalidRequestError: it is another program's, too long, or of another model.
    """
    text = fields.text(FIELD)
    if text is None:
        return Infotext()
    if len(text) > (most := most_characters(limits)):
        raise fields.refuse(FIELD, f"has {len(text)} characters; at most {most} are accepted here")
    written = read_text(text, FIELD)
    _check_model(written, model)
    translation = to_request(written, limits=limits, field=FIELD)
    request = translation.request
    native = {name: getattr(request, name) for name in request.model_fields_set}
    if written.pairs:
        native |= {name: getattr(request, name) for name in _FAMILY}
    if native.get("hires") is not None:
        native["hires"] = native["hires"].model_dump(exclude_none=True)
    if is_picture:
        native.pop("hires", None)
    names = dict.fromkeys(note.name for note in translation.not_honoured)
    if is_picture:
        names = {name: None for name in names if name.casefold() != _STRENGTH}
    names.pop(_MISSING, None)
    return Infotext(native, _picture_fields(written) if is_picture else {}, tuple(names))


def _check_model(written: WrittenParameters, model: ServedModel) -> None:
    """Refuse a text of another model: by its hash, or by name where there is none.

    Raises:
        InvalidRequestError: it is of another.
    """
    name, digits = written.value("model"), written.value("model hash").lower()
    if len(digits) >= SHORT_DIGITS:
        is_served = model.sha256.startswith(digits)
    else:
        is_served = not name or model.is_named(name)
    if not is_served:
        raise InvalidRequestError(
            f"{FIELD} is of another model than the served one, {model.title!r}; without its Model"
            " and Model hash, the request is drawn by this one",
            field=FIELD,
        )


def _picture_fields(written: WrittenParameters) -> dict[str, Any]:
    """Read how a picture was used; what A1111 leaves unsaid there is none of its API's defaults."""
    if not written.value(_STRENGTH):
        return {}
    content = written.value("masked content").casefold().replace(" ", "_")
    known = content in [*MaskedContent]
    return {
        "denoising_strength": written.value(_STRENGTH),
        "mask_blur": written.value("mask blur") or 0,
        "inpainting_fill": CONTENTS.index(MaskedContent(content) if known else _ORIGINAL),
        "inpaint_full_res": written.value("inpaint area").casefold() == "only masked",
        "inpaint_full_res_padding": written.value("masked area padding") or 0,
        "inpainting_mask_invert": written.value("mask mode").casefold() == "inpaint not masked",
    }


_ORIGINAL = MaskedContent.ORIGINAL
