"""Other programs' records of how a picture was made, recognised and refused by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from lpw_sdxl.errors import InvalidRequestError

# Of a JSON text, by a piece that only that program writes; the first one counts.
_BY_PIECE: Mapping[str, str] = {
    "sui_image_params": "SwarmUI",
    '"class_type"': "ComfyUI",
    '"last_node_id"': "ComfyUI",
    "invokeai": "InvokeAI",
    '"positive_conditioning"': "InvokeAI",
    "NovelAI": "NovelAI",
    '"uc"': "NovelAI",
    "fooocus": "Fooocus",
    "Fooocus": "Fooocus",
}
_BY_KEYWORD: Mapping[str, str] = {
    "invokeai_metadata": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "Dream": "InvokeAI",
    "prompt": "ComfyUI",
    "workflow": "ComfyUI",
}
FOREIGN_KEYWORDS = (*_BY_KEYWORD, "Software", "Comment")
"""The keywords of a PNG's texts by which the other programs are known."""
_PROGRAMS = "texts of AUTOMATIC1111, of Forge, and of programs that write the same layout are read"


def refuse_foreign_text(text: str, field: str) -> None:
    """Refuse a text that is another program's JSON.

    Raises:
        InvalidRequestError: it is; the program is named if it is known.
    """
    if not text.lstrip().startswith("{"):
        return
    try:
        if not isinstance(json.loads(text), dict):
            return
    except (ValueError, RecursionError):
        return
    found = next((name for piece, name in _BY_PIECE.items() if piece in text), None)
    whose = f"of {found}" if found else "of another program"
    raise InvalidRequestError(f"{field} holds JSON {whose}; {_PROGRAMS}", field=field)


def refuse_foreign_texts(texts: Mapping[str, str], field: str) -> None:
    """Refuse a picture whose texts are another program's.

    Args:
        texts: of a PNG, by keyword.
        field: of the request.

    Raises:
        InvalidRequestError: they are; the program is named.
    """
    found = next((name for key, name in _BY_KEYWORD.items() if key in texts), None)
    if found is None and "NovelAI" in texts.get("Software", ""):
        found = "NovelAI"
    if found is not None:
        raise _of_program(found, field)


def refuse_foreign_tags(tags: Collection[str], field: str) -> None:
    """Refuse a picture whose Exif has ComfyUI's graphs, as it writes them to a WebP.

    Raises:
        InvalidRequestError: it has.
    """
    if any(tag.lower().startswith(("workflow:", "prompt:")) for tag in tags):
        raise _of_program("ComfyUI", field)


def _of_program(name: str, field: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{field} was made by {name}, which notes that in a form of its own; {_PROGRAMS}",
        field=field,
    )
