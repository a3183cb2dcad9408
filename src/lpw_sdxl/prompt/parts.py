"""The parts of a prompt that stand side by side, divided by AND, and the weight of each.

As in AUTOMATIC1111, the word in capitals divides, whatever brackets are around it, and a part may
end in a colon and a number, which is its weight: so may a prompt of one part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from lpw_sdxl.prompt.excerpt import Excerpt, Run

AND = re.compile(r"\bAND\b")
_NUMBER = re.compile(r"\s*+([+-]?(?:\d++\.?+\d*+|\.\d++))")


class Part(NamedTuple):
    """A part, without its weight and the white space before that.

    Attributes:
        excerpt: its text.
        weight: of its prediction among those of the other parts.
        number_position: of the weight's colon in the prompt, characters; None without one.
    """

    excerpt: Excerpt
    weight: float
    number_position: int | None


def split_parts(prompt: Excerpt) -> Iterator[Part]:
    """Split a prompt at each AND and read the weights."""
    start = 0
    for match in AND.finditer(prompt.text):
        yield _read_part(prompt, Run(start, match.start()))
        start = match.end()
    yield _read_part(prompt, Run(start, len(prompt.text)))


def _read_part(prompt: Excerpt, piece: Run) -> Part:
    text = prompt.text[piece.start : piece.end].rstrip()
    colon, weight, number_position = text.rfind(":"), 1.0, None
    if colon >= 0 and (number := _NUMBER.fullmatch(text, colon + 1)) is not None:
        weight = float(number[1])
        number_position = prompt.place(piece.start + colon)
        text = text[:colon].rstrip()
    excerpt = prompt.keep([Run(piece.start, piece.start + len(text))])
    return Part(excerpt, weight, number_position)
