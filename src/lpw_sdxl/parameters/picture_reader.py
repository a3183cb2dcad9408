"""The `parameters` text that a picture's file holds; no pixel is decoded.

A PNG has it as a text of that keyword or in Exif, a JPEG or WebP in Exif. What programs hide in the
pixels themselves ("stealth" texts) is not looked for.
"""

from __future__ import annotations

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging.containers.png_texts import read_png_texts
from lpw_sdxl.imaging.containers.recognition import read_container
from lpw_sdxl.imaging.exif_texts import ExifTexts, read_exif_texts
from lpw_sdxl.imaging.png import SIGNATURE
from lpw_sdxl.parameters.foreign import (
    FOREIGN_KEYWORDS,
    refuse_foreign_tags,
    refuse_foreign_texts,
)
from lpw_sdxl.parameters.program import OWN_NAME

KEYWORD = "parameters"


def read_picture(content: bytes, field: str = "image") -> str:
    """Read the text of a PNG, JPEG or WebP, in time linear in the file.

    Args:
        content: of the file.
        field: of the request, for refusals.

    Raises:
        InvalidRequestError: it is no picture, is damaged, or has no such text; if it has another
            program's, that is named.
    """
    if not content.startswith(SIGNATURE):
        texts = read_exif_texts(read_container(content, field).exif)
        return _read_exif(texts, field)
    found = read_png_texts(content, (KEYWORD, *FOREIGN_KEYWORDS))
    text = found.by_keyword.get(KEYWORD)
    if text is not None and text.strip("\0 \r\n\t"):
        return _decoded_again(text)
    refuse_foreign_texts(found.by_keyword, field)
    return _read_exif(read_exif_texts(found.exif), field)


def _read_exif(texts: ExifTexts, field: str) -> str:
    if texts.comment is not None and texts.comment.strip("\0 \r\n\t"):
        return texts.comment
    refuse_foreign_tags(texts.tags, field)
    if texts.has_jis:
        raise InvalidRequestError(
            f"{field} has its text in JIS, which is not read; Unicode or ASCII would be right",
            field=field,
        )
    raise InvalidRequestError(
        f"{field} holds no text of how it was made: no parameters in a PNG, and no comment in Exif."
        " A site or a messenger may have taken it out, and text that is hidden in pixels is not"
        " looked for; the text itself, as parameters, would be right",
        field=field,
    )


def _decoded_again(text: str) -> str:
    """Return a text as it was meant: some programs write UTF-8 where the format has Latin-1.

    Ours don't, so that a text of our own stays as it is.
    """
    if text.isascii() or f"Version: {OWN_NAME}" in text:
        return text
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
