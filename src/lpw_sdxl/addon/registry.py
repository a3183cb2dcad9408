"""The LoRAs and embeddings that a request can name, as they are at one moment; no torch.

Only what is here can be named in a request, so no text of a user ever becomes a path. A registry
never changes: where folders change, the next one takes its place (`catalogue.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lpw_sdxl.addon.manifest import AddonManifest
from lpw_sdxl.errors import AddonNotReadError, InvalidRequestError
from lpw_sdxl.store.kind import AddonKind, slug, store_name
from lpw_sdxl.weights.component import Component

if TYPE_CHECKING:
    from concurrent.futures import Future

_NEAR_MATCHES = 3
_SHOWN_CHARACTERS = 64


class Addon(Protocol):
    """A LoRA or an embedding that can be used: an entry of a store, or a file in a folder."""

    @property
    def manifest(self) -> AddonManifest:
        """Return what it is."""

    @property
    def file(self) -> Path:
        """Return its file of tensors."""

    @property
    def key(self) -> str:
        """Return what its tensors are kept by; an add-on with other tensors has another one."""

    def is_current(self) -> bool:
        """Return whether its file is still there and the same, without reading it."""

    def load(self, file: Path, *, is_checked: bool = False) -> Mapping[str, Any]:
        """Read its tensors, torch's, under the names that the store gives them.

        Args:
            file: where its bytes are; `self.file`, or another name of the opened file.
            is_checked: whether these bytes were found to be the right ones before.

        Raises:
            AddonError: they are not.
            CheckpointError: likewise.
        """


class Pending(Protocol):
    """A file that is there and not read yet."""

    def when_read(self) -> Future[None]:
        """Read it before others; return a future of the moment when that has ended, well or not."""


class Finding(NamedTuple):
    """The add-ons of one source, as they are now.

    Attributes:
        addons: that can be used; no two of one kind and `slug`.
        unusable: why something can't be used, by its name in a store, such as `lora-detail`.
        pending: what is still being read, likewise.
        aliases: names in a store by further ones for the same thing.
        ambiguous: of a name that several have, their full names, by its name in a store.
    """

    addons: tuple[Addon, ...] = ()
    unusable: Mapping[str, str] = {}
    pending: Mapping[str, Pending] = {}
    aliases: Mapping[str, str] = {}
    ambiguous: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class Registry:
    """The LoRAs and embeddings that a request can name.

    Attributes:
        loras: by `slug` of the name.
        embeddings: likewise.
        unusable: as in `Finding`; so are the others.
    """

    loras: Mapping[str, Addon]
    embeddings: Mapping[str, Addon]
    unusable: Mapping[str, str] = field(default_factory=dict)
    pending: Mapping[str, Pending] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    ambiguous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Registry:
        """Join what several sources hold; of two things of one name, the first source's serves."""
        known: dict[AddonKind, dict[str, Addon]] = {kind: {} for kind in AddonKind}
        joined: list[dict[str, Any]] = [{}, {}, {}, {}]
        taken: set[str] = set()
        for finding in findings:
            addons = {
                store_name(one.manifest.kind, one.manifest.name): one for one in finding.addons
            }
            for name in addons.keys() - taken:
                manifest = addons[name].manifest
                known[manifest.kind][slug(manifest.name)] = addons[name]
            for whole, part in zip(joined, finding[1:], strict=True):
                whole.update({name: value for name, value in part.items() if name not in taken})
            taken.update(addons, *finding[1:])
        return cls(known[AddonKind.LORA], known[AddonKind.EMBEDDING], *joined)

    @cached_property
    def by_key(self) -> Mapping[str, Addon]:
        """Return the LoRAs by their keys."""
        return {lora.key: lora for lora in self.loras.values()}

    def lora(self, name: str, field: str) -> Addon:
        """Return the LoRA of this name, in upper or lower case.

        Args:
            name: as a user wrote it.
            field: of the request, that is blamed for an unknown name.

        Raises:
            AddonNotReadError: it is there, and its file is still being read.
            InvalidRequestError: there is none, or it can't be used.
        """
        wanted = store_name(AddonKind.LORA, name)
        key = self.aliases.get(wanted, wanted)
        addon = self.loras.get(key.removeprefix(AddonKind.LORA.prefix))
        if addon is not None and (
            key not in self.ambiguous or addon.manifest.name.lower() == name.lower()
        ):
            return addon
        if key in self.pending:
            raise AddonNotReadError(
                f"The LoRA {_shown(name)} is still being read on this server; the same request in a"
                " moment would be right.",
                field=field,
                key=key,
            )
        raise InvalidRequestError(self._unknown(AddonKind.LORA, self.loras, name, key), field=field)

    def changed_networks(self, key: str) -> frozenset[Component]:
        """Return which networks the LoRA of a key changes."""
        return frozenset(map(Component, self.by_key[key].manifest.details.modules))

    def embedding_sha256(self, name: str) -> str:
        """Return the SHA-256 of the file that a known embedding is from."""
        return self.embeddings[slug(name)].manifest.origin.sha256

    def _unknown(self, kind: AddonKind, known: Mapping[str, Addon], name: str, key: str) -> str:
        """Explain why a name can't be used, and name the nearest that can."""
        shown = _shown(name)
        if key in self.ambiguous:
            names = ", ".join(map(repr, self.ambiguous[key][:_NEAR_MATCHES]))
            return (
                f"Several {kind.noun}s are named {shown}; with its folder, a name means one: "
                f"{names}."
            )
        if key in self.unusable:
            # The reason is in the log: it may name files, which are not a client's business.
            return (
                f"The {kind.noun} {shown} is there but can't be used with this model, or is "
                "damaged; the service's log says why."
            )
        near = get_close_matches(slug(name), known, n=_NEAR_MATCHES)
        if near:
            names = ", ".join(repr(known[match].manifest.name) for match in near)
            return f"No {kind.noun} is named {shown}; near are {names}."
        hint = f"/info lists the known ones ({len(known)})" if known else "this server has none"
        return f"No {kind.noun} is named {shown}; {hint}."


NO_ADDONS = Registry({}, {})
"""Nothing can be named."""


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")
