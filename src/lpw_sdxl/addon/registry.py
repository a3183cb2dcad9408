"""The LoRAs and embeddings that a running service knows, by the names that users write.

Only what is here can be named in a request, so no text of a user ever becomes a path. It knows
neither torch nor BentoML; its caller finds the folders.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from lpw_sdxl.addon.manifest import AddonManifest, read_addon_manifest
from lpw_sdxl.conditioning.mentions import NAME
from lpw_sdxl.errors import AddonError, InvalidRequestError
from lpw_sdxl.store.kind import AddonKind, slug
from lpw_sdxl.store.manifest import verify_files
from lpw_sdxl.weights.component import Component

_NEAR_MATCHES = 3
_SHOWN_CHARACTERS = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Addon:
    """An entry whose files have the sizes that they were imported with.

    Attributes:
        manifest: what it is.
        path: its directory.
    """

    manifest: AddonManifest
    path: Path

    @property
    def file(self) -> Path:
        """Return its file of tensors, in safetensors."""
        return self.path / self.manifest.kind.file_name

    def verify(self) -> None:
        """Check every byte, which is for the first time that it is loaded.

        Raises:
            AddonError: a file is not as it was imported.
        """
        verify_files(self.path, self.manifest)


@dataclass(frozen=True)
class Registry:
    """The LoRAs and embeddings that a request can name.

    Attributes:
        loras: by `slug` of the name; of several versions, the one imported last.
        embeddings: likewise.
        unusable: why an entry can't be used, by its name in the store, such as `lora-detail`.
    """

    loras: Mapping[str, Addon]
    embeddings: Mapping[str, Addon]
    unusable: Mapping[str, str]

    @classmethod
    def read(
        cls,
        directories: Iterable[Path],
        *,
        signature: str | None,
        embedding_fit: str | None = None,
    ) -> Registry:
        """Read the entries in these directories; check the embeddings' bytes, the LoRAs' sizes.

        Embeddings are small, and loaded at once; a LoRA is checked when it is first asked for.

        What is damaged or doesn't fit is left out with a warning. Where several versions of a name
        can be used, the one imported last serves.

        Args:
            directories: each one entry's, with its manifest.
            signature: of the model that is served (`lora.targets.signature`); None: not checked.
            embedding_fit: of its text encoders, as `embedding.preflight` writes it; None: likewise.
        """
        fits = {AddonKind.LORA: signature, AddonKind.EMBEDDING: embedding_fit}
        known: dict[AddonKind, dict[str, Addon]] = {kind: {} for kind in AddonKind}
        unusable: dict[str, str] = {}
        for directory in directories:
            try:
                addon = _read(directory, fits)
            except AddonError as error:
                # Named for the folder above, as the store does: the manifest may be unreadable.
                unusable[directory.parent.name] = str(error)
                logger.warning("left out: %s", error)
                continue
            of_kind, name = known[addon.manifest.kind], slug(addon.manifest.name)
            other = of_kind.get(name)
            if other is None or other.manifest.created <= addon.manifest.created:
                of_kind[name] = addon
        return cls(known[AddonKind.LORA], known[AddonKind.EMBEDDING], unusable)

    def lora(self, name: str, field: str) -> Addon:
        """Return the LoRA of this name, in upper or lower case.

        Args:
            name: as a user wrote it.
            field: of the request, that is blamed for an unknown name.

        Raises:
            InvalidRequestError: there is none, or it can't be used.
        """
        addon = self.loras.get(slug(name))
        if addon is not None:
            return addon
        raise InvalidRequestError(self._unknown(AddonKind.LORA, self.loras, name), field=field)

    def changed_networks(self, name: str) -> frozenset[Component]:
        """Return which networks a known LoRA changes, by the registry's own name."""
        return frozenset(map(Component, self.loras[slug(name)].manifest.details.modules))

    def embedding_sha256(self, name: str) -> str:
        """Return the SHA-256 of the file that a known embedding was imported from."""
        return self.embeddings[slug(name)].manifest.origin.sha256

    def _unknown(self, kind: AddonKind, known: Mapping[str, Addon], name: str) -> str:
        """Explain why a name can't be used, and name the nearest that can."""
        shown = repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")
        if kind.prefix + slug(name) in self.unusable:
            # The reason is in the log: it may name files, which are not a client's business.
            return (
                f"The {kind.noun} {shown} is imported but can't be used with this model, or is "
                "damaged; the service's log says why."
            )
        near = get_close_matches(slug(name), known, n=_NEAR_MATCHES)
        if near:
            names = ", ".join(repr(known[match].manifest.name) for match in near)
            return f"No {kind.noun} is named {shown}; near are {names}."
        hint = f"/info lists the known ones ({len(known)})" if known else "none was imported"
        return (
            f"No {kind.noun} is named {shown}; {hint}. What was imported since the service "
            "started is known after its next start."
        )


NO_ADDONS = Registry({}, {}, {})
"""Nothing can be named."""


def _read(directory: Path, fits: Mapping[AddonKind, str | None]) -> Addon:
    manifest = read_addon_manifest(directory)
    if manifest.kind is AddonKind.EMBEDDING and not NAME.fullmatch(manifest.name):
        raise AddonError(
            f"The embedding {manifest.name!r} has a name that no prompt can hold as a word; import "
            "its file again with a --name of letters A to Z, digits, '.', '_' and '-'."
        )
    verify_files(directory, manifest, contents=manifest.kind is AddonKind.EMBEDDING)
    wanted = fits[manifest.kind]
    if wanted is not None and manifest.fits != wanted:
        raise AddonError(
            f"The {manifest.kind.noun} {manifest.name!r} was imported for {manifest.fits_name} "
            "and doesn't fit the model that is served; import its file again with --model TAG."
        )
    return Addon(manifest, directory)
