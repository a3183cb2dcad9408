"""The kinds of add-on, and the names in the store of the names that users write; pure."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from enum import StrEnum

SLUG_LENGTH = 48

_SEPARATORS = re.compile("[^a-z0-9._-]+")
_DIGITS = 8


class AddonKind(StrEnum):
    """A kind of file beside a model; its value is the command, and begins the name in the store."""

    LORA = "lora"
    EMBEDDING = "embedding"
    UPSCALER = "upscaler"

    @property
    def noun(self) -> str:
        """Return its name in a sentence, without an article."""
        return _NOUNS[self]

    @property
    def with_article(self) -> str:
        """Return its name with its article."""
        return _WITH_ARTICLE[self]

    @property
    def file_name(self) -> str:
        """Return the name of the entry's file of tensors."""
        return f"{self.value}.safetensors"

    @property
    def prefix(self) -> str:
        """Return what the names of its entries begin with."""
        return f"{self.value}-"


_WITH_ARTICLE = {
    AddonKind.LORA: "a LoRA",
    AddonKind.EMBEDDING: "an embedding",
    AddonKind.UPSCALER: "an upscaler",
}
_NOUNS = {
    AddonKind.LORA: "LoRA",
    AddonKind.EMBEDDING: "embedding",
    AddonKind.UPSCALER: "upscaler",
}


def slug(name: str) -> str:
    """Return the part of a store name that a name stands for: 0 to 48 of a-z, 0-9, '.', '_', '-'.

    Upper and lower case are one, and what lies between words is a '-'. Where letters are lost (they
    are not a-z) or the name is too long, a hash of it keeps two names apart.
    """
    lowered = unicodedata.normalize("NFC", name).lower()
    words = _SEPARATORS.sub("-", lowered).strip("._-")
    is_lossy = any(char.isalnum() and not char.isascii() for char in lowered)
    if not is_lossy and len(words) <= SLUG_LENGTH:
        return words
    digest = hashlib.sha256(lowered.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{words[: SLUG_LENGTH - _DIGITS - 1]}-{digest}".strip("._-")


def store_name(kind: AddonKind, name: str) -> str:
    """Return the name in the store of an add-on that users call `name`."""
    return kind.prefix + slug(name)


def kind_of_store_name(name: str) -> AddonKind | None:
    """Return the kind that a name in the store is of, or None for a model's."""
    return next((kind for kind in AddonKind if name.startswith(kind.prefix)), None)
