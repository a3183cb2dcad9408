"""What an answer repeats of its request, and what it states that was ignored."""

from __future__ import annotations

import difflib
import re
from typing import Any

from lpw_sdxl.doors.a1111.known_fields import BY_HABIT, OF_OTHERS, PICTURE_FIELDS, TEXT_FIELDS
from lpw_sdxl.doors.a1111.loose_fields import LooseFields
from lpw_sdxl.doors.a1111.sizes import round_down
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.schema import ImageSize

NEAR = 0.7  # of two names, 0 to 1; `scheduler_name` is as near to `scheduler`
SHOWN_NAMES, SHOWN_CHARACTERS = 10, 64


def list_unknown(fields: LooseFields) -> list[str]:
    """List the names that no client of A1111's sends to it on purpose."""
    return fields.unknown({*PICTURE_FIELDS, *TEXT_FIELDS, *OF_OTHERS, *BY_HABIT})


def write_notes(
    fields: LooseFields, not_honoured: tuple[str, ...], unknown: list[str]
) -> dict[str, str]:
    """State what was ignored: of a text, and fields that are near to one that is known."""
    notes = {}
    sent = [fields.whole(side) for side in ("width", "height")]
    if any(pixels is not None and round_down(pixels) != pixels for pixels in sent):
        notes["Size rounded from"] = "x".join("?" if one is None else str(one) for one in sent)
    if not_honoured:
        notes["Infotext not honoured"] = ", ".join(not_honoured)
    near = [
        f"{name} ({found[0]}?)"
        for name in unknown[:SHOWN_NAMES]
        if (found := difflib.get_close_matches(name[:SHOWN_CHARACTERS], TEXT_FIELDS, 1, NEAR))
        and re.fullmatch(r"\w{1,64}", name)
    ]
    if near:
        notes["Ignored fields"] = ", ".join(near)
    return notes


def echo_fields(fields: LooseFields, size: ImageSize, *, is_picture: bool) -> dict[str, Any]:
    """Repeat the request's known fields, with A1111's defaults; others may be secrets."""
    defaults_of = {**(PICTURE_FIELDS if is_picture else TEXT_FIELDS), **size._asdict()}
    return {name: _plain(fields, name, default) for name, default in defaults_of.items()}


def _plain(fields: LooseFields, name: str, default: Any) -> Any:
    """Return a field's value, as a number or a boolean where its default is one."""
    if name not in fields:
        return default
    value = fields.values[name]
    reads = {bool: fields.flag, int: fields.whole, float: fields.number}
    read = reads.get(type(default))
    if read is None:
        return value
    try:
        return read(name)
    except InvalidRequestError:  # it had no effect, and so was not read
        return default
