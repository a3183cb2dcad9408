"""The names that a server offers, and the one that a text's name means; it knows no registry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from lpw_sdxl.parameters.hashes import AUTOV2_DIGITS
from lpw_sdxl.store.kind import slug

LONGEST_NAME = 128  # characters; a longer one is near to none


@dataclass(frozen=True)
class Offered:
    """The names that a server offers.

    Attributes:
        model_name: in the store.
        model_sha256: of the checkpoint's file, hex.
        loras: the SHA-256 of each file, hex, by every name that a request may use for it.
        embeddings: likewise.
        model_file: name of the checkpoint's file; empty if it is not known.
        upscalers: names of those that were imported.
    """

    model_name: str
    model_sha256: str
    loras: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    model_file: str = ""
    upscalers: tuple[str, ...] = ()

    def find_lora(self, name: str) -> str | None:
        """Find a LoRA's name as it is written, in any case, or in any signs between its words."""
        return name if name in self.loras else self._loras_by_slug.get(slug(name))

    def find_embedding(self, name: str) -> str | None:
        """Find an embedding's name likewise."""
        return name if name in self.embeddings else self._embeddings_by_slug.get(slug(name))

    def find_lora_by_hash(self, digits: str) -> str | None:
        """Find the LoRA whose file has an AutoV2 hash; None for hashes of other kinds."""
        if len(digits) != AUTOV2_DIGITS:
            return None
        return next((name for name, sha in self.loras.items() if sha.startswith(digits)), None)

    def find_upscaler(self, name: str) -> str | None:
        """Find an imported upscaler's name likewise."""
        return next((one for one in self.upscalers if slug(one) == slug(name)), None)

    @cached_property
    def _loras_by_slug(self) -> Mapping[str, str]:
        return {slug(name): name for name in self.loras}

    @cached_property
    def _embeddings_by_slug(self) -> Mapping[str, str]:
        return {slug(name): name for name in self.embeddings}


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Find the name that is most like a text; None if none is near."""
    by_slug = {slug(known): known for known in names}
    near = difflib.get_close_matches(slug(name[:LONGEST_NAME]), by_slug, n=1)
    return by_slug[near[0]] if near else None
