"""JSON with pictures in it: their texts are cut out and decoded on their own.

A parser would hold the interpreter for as long as it copies them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lpw_sdxl.doors.json_text import parse_json
from lpw_sdxl.errors import BodyTooLargeError, InvalidRequestError
from lpw_sdxl.json_bounds import JsonText, find_inner_texts

# A longer text that is no JSON is not parsed as a whole to find where it is broken.
LONGEST_EXPLAINED_BYTES = 2**20


@dataclass(frozen=True)
class CutText:
    """A text of JSON that was not parsed, as it stands between its quotes."""

    content: JsonText


def parse_with_pictures(text: JsonText, names: Collection[str], most: int) -> dict[str, Any]:
    """Parse an object; every text in some of its fields, however deep, becomes a `CutText`.

    Args:
        text: of the object.
        names: of the fields with pictures.
        most: bytes of all else.

    Raises:
        BodyTooLargeError: there is more beside pictures.
        InvalidRequestError: it is no JSON object, or over the bounds.
    """
    spans = find_inner_texts(text, names)
    pieces: list[JsonText] = []
    end = 0
    for number, span in enumerate(spans):
        pieces += (text[end : span.start], str(number).encode())
        end = span.end
    pieces.append(text[end:])
    if sum(map(len, pieces)) > most:
        raise BodyTooLargeError(
            f"the body is larger than the {most} bytes that are accepted here beside pictures"
        )
    cut = [CutText(text[span.start : span.end]) for span in spans]
    try:
        fields = parse_json(b"".join(pieces))
    except InvalidRequestError:
        if len(text) <= LONGEST_EXPLAINED_BYTES:
            parse_json(text)  # where it is broken is counted in the whole
        raise
    return {
        name: _with_texts(value, cut) if name in names else value for name, value in fields.items()
    }


def _with_texts(value: Any, cut: Sequence[CutText]) -> Any:
    """Put the texts into the places of their numbers; what is empty stays a text."""
    if isinstance(value, str):
        text = cut[int(value)]
        return text if len(text.content) else ""
    if isinstance(value, list):
        return [_with_texts(inner, cut) for inner in value]
    if isinstance(value, dict):
        return {key: _with_texts(inner, cut) for key, inner in value.items()}
    return value
