"""Comments of a prompt in AUTOMATIC1111's dialect; they are taken out before all else is read.

A line that begins with `#` is no part of the prompt, and neither is its end. From any other `#` the
rest of the line is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lpw_sdxl.prompt.excerpt import Run

_COMMENT = re.compile(r"^#[^\n]*+\n?|#[^\n]*+", re.MULTILINE)


def find_comments(text: str) -> Iterator[Run]:
    """Find the comments, in their order."""
    return (Run(*match.span()) for match in _COMMENT.finditer(text))
