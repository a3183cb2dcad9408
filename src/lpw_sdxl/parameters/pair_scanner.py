"""The pairs of a line such as `Steps: 20, Sampler: Euler a`, in time linear in its length.

A value ends at the next comma, unless it is a JSON string, a JSON list or a JSON object. A piece
between two commas that has no key belongs to the value before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lpw_sdxl.parameters.written import Pair

KEY = re.compile(r"[\s*]*+(\w[\w \t/-]{1,63}+)\**\s*+:\**[ \t]*")
"""A key at the beginning of a piece, with its colon; forums put stars around it."""

_QUOTED = re.compile(r'("(?:[^"\\]|\\.)*+")\s*(?:,|$)', re.DOTALL)
_LIST_OR_OBJECT = re.compile(r"[\[{]")
_BLANKS = re.compile(r"\s*")
# Of lists and objects that are none: each may be read to the end before that is known.
_MOST_BROKEN = 16

_decoder = json.JSONDecoder()


def scan_pairs(block: str) -> tuple[Pair, ...]:
    """Take a block of pairs apart.

    Args:
        block: without line breaks between its pairs.
    """
    pairs: list[tuple[str, list[str]]] = []
    for key, value in _scan(block):
        if key:
            pairs.append((key, [value]))
        elif pairs and value:
            pairs[-1][1].append(value)
    return tuple(Pair(key, ", ".join(values)) for key, values in pairs)


def _scan(block: str) -> Iterator[Pair]:
    """Yield all pieces; one without a key has an empty one."""
    place, broken = 0, 0
    while place < len(block):
        found = KEY.match(block, place)
        start = found.end() if found else place
        key = found[1].strip() if found else ""
        quoted = _QUOTED.match(block, start)
        if quoted:
            yield Pair(key, _unquote(quoted[1]))
            place = quoted.end()
            continue
        end = None
        if key and broken < _MOST_BROKEN and _LIST_OR_OBJECT.match(block, start):
            end = _end_of_json(block, start)
            broken += end is None
        if end is None:
            comma = block.find(",", start)
            end = comma if comma >= 0 else len(block)
        yield Pair(key, block[start:end].strip())
        place = end + 1


def _end_of_json(block: str, start: int) -> int | None:
    """Find the comma, or the end, behind a JSON value; None if there is no such value."""
    try:
        _, end = _decoder.raw_decode(block, start)
    except (ValueError, RecursionError):
        return None
    blanks = _BLANKS.match(block, end)
    end = blanks.end() if blanks else end
    return end if end == len(block) or block[end] == "," else None


def _unquote(quoted: str) -> str:
    """Read a JSON string; one that is none loses its quotes."""
    try:
        return str(json.loads(quoted, strict=False))
    except ValueError:
        return quoted[1:-1]
