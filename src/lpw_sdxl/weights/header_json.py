"""The JSON of a safetensors header, counted before anything is made of it; pure.

JSON of 100 MB may be six million names, which cost eighteen seconds and two gigabytes before the
first of them is found to be no tensor's. So names, values and escapes are counted in one pass that
keeps nothing, and the first one too many is refused.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

MAX_TENSORS = 20_000
"""SDXL has about 2,500 tensors, a big LoRA about 8,000; 200,000 made readers work for seconds."""
MAX_NAME_CHARACTERS = 250
"""Of a tensor or a note. SDXL's longest tensor has 88, a LoRA's about 150."""

_MAX_NAMES = 5 * MAX_TENSORS  # a tensor has its own and three inside, and a fifth is for notes
_MAX_VALUES = 40 * MAX_TENSORS  # commas and brackets: a tensor of eight dimensions has 20
_MAX_ESCAPES = 10_000_000  # in the notes, which may hold JSON of their own
_MAX_STRETCH = 100_000  # characters without any of these: only blanks or one number can be so long
_TOKEN = re.compile(r'["\[{,]')
_COLON = re.compile(r"[ \t\n\r]{0,1000}:")
_DECODER = json.JSONDecoder()


class HeaderJsonError(ValueError):
    """A header's text that can't be used; the message is the end of a sentence about its file."""


def parse_header_json(text: bytes) -> dict[str, object]:
    """Return the JSON object of a header.

    Args:
        text: UTF-8, perhaps with blanks behind.

    Raises:
        HeaderJsonError: it is no JSON object, names something twice, or is over a bound.
    """
    if text.count(b'"data_offsets"') > MAX_TENSORS:
        raise HeaderJsonError(f"it lists more than {MAX_TENSORS:,} tensors")
    if text.count(b"\\") > _MAX_ESCAPES:
        raise HeaderJsonError(f"its header has more than {_MAX_ESCAPES:,} escaped characters")
    try:
        decoded = text.decode("utf-8").rstrip(" \t\n\r")
        _check_counts(decoded)
        entries = json.loads(decoded, object_pairs_hook=_unique)
    except HeaderJsonError:
        raise
    except (ValueError, RecursionError) as error:
        _refuse_json(error)
    if not isinstance(entries, dict):
        raise HeaderJsonError("its header is not a JSON object")
    return entries


def _check_counts(text: str) -> None:
    """Refuse too many or too long names, and too many values, in time linear in the bounds."""
    position = names = values = 0
    while True:
        found = _TOKEN.search(text, position, position + _MAX_STRETCH)
        if found is None:
            if position + _MAX_STRETCH < len(text):
                _refuse_json()
            return
        position = found.end()
        if found[0] != '"':
            values += 1
            if values > _MAX_VALUES:
                raise HeaderJsonError(f"its header has more than {_MAX_VALUES:,} values")
            continue
        start = position
        _, position = _DECODER.raw_decode(text, found.start())
        if _COLON.match(text, position) is None:
            continue
        names += 1
        length = position - start - 1  # as it is written, with its escapes
        if length > MAX_NAME_CHARACTERS:
            raise HeaderJsonError(
                f"its header has a name of {length:,} characters, and"
                f" {MAX_NAME_CHARACTERS} is the most"
            )
        if names > _MAX_NAMES:
            raise HeaderJsonError(f"its header has more than {_MAX_NAMES:,} names")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name appears twice")
    return entries


def _refuse_json(cause: Exception | None = None) -> NoReturn:
    raise HeaderJsonError("its header is not the JSON it should be") from cause
