"""What a model offers to requests at one moment: LoRAs and embeddings, and prompts that name them.

A request takes one offer and keeps to it, while folders change.
"""

from __future__ import annotations

import logging
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
        self._refused: dict[str, str] = {}  # likewise, why it can't be used
        self._reader: PromptReader | None = None  # of those embeddings
        self.current = self._make(catalogue.current)
        catalogue.start(self._change)
        catalogue.settle()

    def _change(self, registry: Registry) -> None:
        self.current = self._make(registry)

    def _make(self, registry: Registry) -> Offer:
        before = [*self._embeddings.values()]
        registry = self._read_embeddings(registry)
        embeddings = [*self._embeddings.values()]
        if self._reader is None or embeddings != before:
            self._reader = replace(
                self._encoder.reader_of(embeddings),
                limits=PromptLimits(
                    self._settings.max_prompt_characters,
                    max_variants=self._settings.max_prompt_variants,
                ),
                max_chunks=self._settings.max_prompt_chunks,
            )
        return Offer(registry, self._reader)

    def _read_embeddings(self, registry: Registry) -> Registry:
        """Read the embeddings that are new, and forget others; leave out what can't be used."""
        embeddings, refused = self._embeddings, self._refused
        self._embeddings, self._refused = {}, {}
        usable, unusable = dict(registry.embeddings), dict(registry.unusable)
        for slug, addon in registry.embeddings.items():
            read = embeddings.get(addon.key) or refused.get(addon.key) or self._read(addon)
            if isinstance(read, Embedding):
                self._embeddings[addon.key] = read
            else:
                self._refused[addon.key] = read
                unusable[store_name(addon.manifest.kind, addon.manifest.name)] = read
                del usable[slug]
        return replace(registry, embeddings=usable, unusable=unusable)

    def _read(self, addon: Addon) -> Embedding | str:
        """Read an embedding; return why it can't be used, if it can't."""
        name = addon.manifest.name
        try:
            embedding = make_embedding(name, addon.load(addon.file))
            self._encoder.check(embedding)
        except (LpwSdxlError, OSError) as error:
            logger.warning("embedding %s is left out: %s", name, error)
            return str(error)
        return embedding
