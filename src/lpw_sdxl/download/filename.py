"""The name that a downloaded file is kept under, made from the names that servers and users give.

Pure. Whatever comes in, a name that comes out stays in its folder, fits every file system and
does nothing to a terminal.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from lpw_sdxl.weights.text import clean_text

SUFFIX = ".safetensors"
DEFAULT_NAME = f"checkpoint{SUFFIX}"
MAX_NAME_CHARACTERS = 150

_MAX_NAME_BYTES = 200  # file systems end at 255, and `.part` follows
_MAX_HEADER_CHARACTERS = 4096
_RESERVED = re.compile(r'[<>:"|?*]')
# RFC 6266 section 4.1 with RFC 8187 section 3.2.1.
_EXTENDED = re.compile(r"(?:^|;)\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^;\s]+)", re.I)
_PLAIN = re.compile(r'(?:^|;)\s*filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))', re.I)


def safe_file_name(text: str) -> str | None:
    """Reduce a name to a safe one that ends in `.safetensors`, or return None."""
    name = clean_text(re.split(r"[/\\]", text)[-1])
    name = _RESERVED.sub("_", name).lstrip(". ").rstrip()
    stem = name[: -len(SUFFIX)].rstrip(". ")
    if not name.lower().endswith(SUFFIX) or not stem:
        return None
    stem = stem[: MAX_NAME_CHARACTERS - len(SUFFIX)]
    stem = stem.encode()[: _MAX_NAME_BYTES - len(SUFFIX)].decode(errors="ignore")
    return stem + SUFFIX


def name_download(url: str, content_disposition: str) -> str:
    """Return the name for a URL's file: what the server calls it, else what the URL does.

    Args:
        url: as the user gave it.
        content_disposition: the answer's header, or empty.
    """
    in_url = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
    names = (safe_file_name(name) for name in (_disposition_name(content_disposition), in_url))
    return next((name for name in names if name), DEFAULT_NAME)


def _disposition_name(header: str) -> str:
    header = header[:_MAX_HEADER_CHARACTERS]
    if extended := _EXTENDED.search(header):
        return unquote(extended[2], encoding=extended[1], errors="replace")
    if plain := _PLAIN.search(header):
        return re.sub(r"\\(.)", r"\1", plain[1]) if plain[1] is not None else plain[2]
    return ""
