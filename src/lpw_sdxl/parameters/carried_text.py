"""The text that a picture's file holds, to be written into the file of what is made of it."""

from __future__ import annotations

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.parameters.picture_reader import read_picture


def read_carried_text(content: bytes) -> str:
    """Read a picture's `parameters` text; empty where it has none that a file could carry.

    Args:
        content: of the picture's file.
    """
    try:
        text = read_picture(content)
        text.encode()
    except (InvalidRequestError, UnicodeEncodeError):
        return ""
    return "" if "\0" in text else text
