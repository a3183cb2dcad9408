"""The hashes by which a text names the files of LoRAs and embeddings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lpw_sdxl.parameters.written import WrittenParameters

AUTOV2_DIGITS = 10  # of a file's SHA-256; A1111 has 12, of the tensors alone

_HEX = re.compile(r"[0-9a-f]+", re.IGNORECASE)
_LORA_BEGINNING, _EMBEDDING_BEGINNING = "lora:", "embed:"


def lora_hashes(written: WrittenParameters) -> dict[str, str]:
    """Return the hash of each LoRA, lower-case digits, by the name in the text."""
    return {
        **read_hashes(written.value("lora hashes")),
        **dict(_civitai_hashes(written, _LORA_BEGINNING)),
    }


def embedding_names(written: WrittenParameters) -> list[str]:
    """List the embeddings that a text names, each once."""
    names = [
        *read_hashes(written.value("ti hashes")),
        *(name.strip() for name in written.value("ti").split(",")),
        *(name for name, _ in _civitai_hashes(written, _EMBEDDING_BEGINNING)),
    ]
    return [*filter(None, dict.fromkeys(names))]


def read_hashes(value: str) -> dict[str, str]:
    """Read `name: hash, name: hash`; a name may have both marks."""
    found: dict[str, str] = {}
    begun: list[str] = []
    for piece in value.split(","):
        name, colon, digits = piece.rpartition(":")
        if not colon or not _HEX.fullmatch(digits.strip()):
            begun.append(piece)
            continue
        found[",".join((*begun, name)).strip()] = digits.strip().lower()
        begun = []
    return found


def _civitai_hashes(written: WrittenParameters, beginning: str) -> Iterator[tuple[str, str]]:
    """Yield the hashes of one kind that Civitai's extension writes as a JSON object."""
    try:
        hashes = json.loads(written.value("hashes") or "{}")
    except (ValueError, RecursionError):
        return
    if not isinstance(hashes, dict):
        return
    for key, digits in hashes.items():
        if key.startswith(beginning) and isinstance(digits, str):
            yield key.removeprefix(beginning), digits.lower()
