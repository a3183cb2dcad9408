"""What a model offers to requests at one moment: LoRAs and embeddings, and prompts that name them.

A request takes one offer and keeps to it, while folders change.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lpw_sdxl.addon.catalogue import Catalogue
from lpw_sdxl.addon.registry import Addon, Registry
from lpw_sdxl.conditioning import PromptEncoder
from lpw_sdxl.conditioning.embeddings import Embedding, make_embedding
from lpw_sdxl.conditioning.prompt_reader import PromptReader
from lpw_sdxl.errors import LpwSdxlError
from lpw_sdxl.prompt import PromptLimits
from lpw_sdxl.settings import Settings
from lpw_sdxl.store.kind import store_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offer:
    """The names that a request may use.

    Attributes:
        registry: of LoRAs and embeddings.
        reader: of prompts, which knows the same embeddings.
    """

    registry: Registry
    reader: PromptReader


class Offers:
    """The offer of the moment; `current` may be read by any thread.

    Args:
        catalogue: of LoRAs and embeddings; it is started here.
        encoder: of the model's prompts.
        settings: limits of prompts.
    """

    def __init__(self, catalogue: Catalogue, encoder: PromptEncoder, settings: Settings) -> None:
        self._encoder = encoder
        self._settings = settings
        self._embeddings: dict[str, Embedding] = {}  # by the add-on's key
        self.current = self._make(catalogue.current)
        catalogue.start(self._change)
        catalogue.settle()

    def _change(self, registry: Registry) -> None:
        self.current = self._make(registry)

    def _make(self, registry: Registry) -> Offer:
        registry = self._read_embeddings(registry)
        reader = replace(
            self._encoder.reader_of([*self._embeddings.values()]),
            limits=PromptLimits(self._settings.max_prompt_characters),
            max_chunks=self._settings.max_prompt_chunks,
        )
        return Offer(registry, reader)

    def _read_embeddings(self, registry: Registry) -> Registry:
        """Read the embeddings that are new, and forget others; leave out what can't be used."""
        known, unusable = {}, dict(registry.unusable)
        for slug, addon in registry.embeddings.items():
            manifest = addon.manifest
            try:
                known[slug] = self._embeddings.get(addon.key) or self._read(addon)
            except (LpwSdxlError, OSError) as error:
                logger.warning("embedding %s is left out: %s", manifest.name, error)
                unusable[store_name(manifest.kind, manifest.name)] = str(error)
        usable: Mapping[str, Addon] = {slug: registry.embeddings[slug] for slug in known}
        self._embeddings = {registry.embeddings[slug].key: one for slug, one in known.items()}
        return replace(registry, embeddings=usable, unusable=unusable)

    def _read(self, addon: Addon) -> Embedding:
        embedding = make_embedding(addon.manifest.name, addon.load(addon.file))
        self._encoder.check(embedding)
        return embedding
