"""The add-ons that a request can name, as they are at one moment; no torch.

Only what is here can be named in a request, so no text of a user ever becomes a path. A registry
never changes: where folders change, the next one takes its place (`catalogue.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from lpw_sdxl.addon.manifest import AddonManifest
from lpw_sdxl.errors import AddonNotReadError, InvalidRequestError
from lpw_sdxl.store.kind import AddonKind, slug
from lpw_sdxl.weights.component import Component

if TYPE_CHECKING:
    from concurrent.futures import Future

_NEAR_MATCHES = 3
_SHOWN_CHARACTERS = 64


class Addon(Protocol):
    """An add-on that can be used: an entry of a store, or a file in a folder."""

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


@runtime_checkable
class Pending(Protocol):
    """A file that is there and not read yet."""

    def when_read(self) -> Future[None]:
        """Read it before others; return a future of the moment when that has ended, well or not."""


class Found(NamedTuple):
    """One thing in a source of add-ons.

    Attributes:
        kind: of it.
        name: by which it is shown and written.
        full_name: with its folders; the name of an entry.
        content: what it is: usable, still being read, or why it can't be used.
        keeps_name: whether it keeps its name from a later source also where it can't be used.
    """

    kind: AddonKind
    name: str
    full_name: str
    content: Addon | Pending | str
    keeps_name: bool = True


Finding = tuple[Found, ...]
"""All that one source holds now; no two have one `full_name`."""


class Label(NamedTuple):
    """A name that stands for a LoRA.

    Attributes:
        text: the name.
        source: number of the LoRA's source; of two for one text, the lower one counts.
        key: of the LoRA, in the registry's mappings.
        is_short: whether a folder is left out; a whole name counts before it.
    """

    text: str
    source: int
    key: str
    is_short: bool = False

    @property
    def rank(self) -> tuple[int, bool]:
        """Return what decides between two for one text: the lower one counts."""
        return self.source, self.is_short


@dataclass(frozen=True)
class Registry:
    """The add-ons that a request can name.

    Attributes:
        loras: by `slug` of the name; a second one with the same by that and a number.
        embeddings: likewise.
        unusable: why something can't be used, by its name in a store, such as `lora-detail`.
        pending: add-ons that are still being read, likewise.
        labels: the names of LoRAs beside those of `loras`.
        upscalers: by `slug` of the name, as `loras`.
    """

    loras: Mapping[str, Addon]
    embeddings: Mapping[str, Addon]
    unusable: Mapping[str, str] = field(default_factory=dict)
    pending: Mapping[str, Pending] = field(default_factory=dict)
    labels: tuple[Label, ...] = ()
    upscalers: Mapping[str, Addon] = field(default_factory=dict)

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Registry:
        """Join what several sources hold; of two things of one name, the first source's serves."""
        usable: dict[AddonKind, dict[str, Addon]] = {kind: {} for kind in AddonKind}
        unusable: dict[str, str] = {}
        pending: dict[str, Pending] = {}
        labels: list[Label] = []
        taken: set[tuple[AddonKind, str]] = set()
        keys: set[str] = set()
        for source, finding in enumerate(findings):
            names = set()
            for found in finding:
                name = _free_name(found, taken)
                if name is None:
                    continue
                if not isinstance(found.content, str) or found.keeps_name:
                    names.add((found.kind, name.lower()))
                key = _free_key(name, found.kind, keys)
                keys.add(stored := found.kind.prefix + key)
                if isinstance(found.content, str):
                    unusable.setdefault(stored, found.content)
                elif isinstance(found.content, Pending):
                    pending[stored] = found.content
                else:
                    usable[found.kind][key] = found.content
                if found.kind is AddonKind.LORA:
                    labels.append(Label(name, source, key))
                    labels.append(Label(found.full_name, source, key))
                    short = found.full_name.rpartition("/")[2]
                    if (found.kind, short.lower()) not in taken:
                        labels.append(Label(short, source, key, is_short=True))
            taken |= names
        loras, embeddings = usable[AddonKind.LORA], usable[AddonKind.EMBEDDING]
        upscalers = usable[AddonKind.UPSCALER]
        return cls(loras, embeddings, unusable, pending, tuple(labels), upscalers)

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
        keys = self._find(name)
        if len(keys) > 1:
            names = ", ".join(sorted(repr(self._written[key]) for key in keys)[:_NEAR_MATCHES])
            raise InvalidRequestError(
                f"Several LoRAs are named {_shown(name)}; written as they are, names mean one: "
                f"{names}.",
                field=field,
            )
        key = next(iter(keys), slug(name))
        if key in self.loras:
            return self.loras[key]
        pending = self.pending.get(AddonKind.LORA.prefix + key)
        if pending is not None:
            raise AddonNotReadError(
                f"The LoRA {_shown(name)} is still being read on this server; a request for an"
                " image waits until it is.",
                field=field,
                pending=pending,
            )
        raise InvalidRequestError(self._unknown(name, key), field=field)

    def changed_networks(self, key: str) -> frozenset[Component]:
        """Return which networks the LoRA of a key changes."""
        return frozenset(map(Component, self.by_key[key].manifest.details.modules))

    def embedding_sha256(self, name: str) -> str:
        """Return the SHA-256 of the file that a known embedding is from."""
        return self._sha256_of_embeddings[name]

    @cached_property
    def _sha256_of_embeddings(self) -> Mapping[str, str]:
        manifests = (embedding.manifest for embedding in self.embeddings.values())
        return {manifest.name: manifest.origin.sha256 for manifest in manifests}

    def _find(self, name: str) -> set[str]:
        """Return the keys that a name stands for: as it is written, in any case, in any signs."""
        for level, normalise in zip(self._labels, _NORMALS, strict=True):
            labels = level.get(normalise(name))
            if labels:
                best = min(label.rank for label in labels)
                return {label.key for label in labels if label.rank == best}
        return set()

    @cached_property
    def _all_labels(self) -> tuple[Label, ...]:
        own = (Label(lora.manifest.name, 0, key) for key, lora in self.loras.items())
        return self.labels or tuple(own)

    @cached_property
    def _labels(self) -> tuple[Mapping[str, list[Label]], ...]:
        """Return for each of `_NORMALS` the labels by the text that it makes of theirs."""
        levels: tuple[dict[str, list[Label]], ...] = tuple({} for _ in _NORMALS)
        for level, normalise in zip(levels, _NORMALS, strict=True):
            for label in self._all_labels:
                # `detail` is no more `a/detail` than `b/Detail`, though it is written as the one.
                if not (label.is_short and normalise is str):
                    level.setdefault(normalise(label.text), []).append(label)
        return levels

    @cached_property
    def _written(self) -> Mapping[str, str]:
        """Return the first label of each key."""
        return {label.key: label.text for label in reversed(self._all_labels)}

    def _unknown(self, name: str, key: str) -> str:
        """Explain why a name can't be used, and name the nearest that can."""
        shown = _shown(name)
        if AddonKind.LORA.prefix + key in self.unusable:
            # The reason is in the log: it may name files, which are not a client's business.
            return (
                f"The LoRA {shown} is there but can't be used with this model, or is damaged; the"
                " service's log says why."
            )
        near = get_close_matches(slug(name), self.loras, n=_NEAR_MATCHES)
        if near:
            names = ", ".join(repr(self.loras[match].manifest.name) for match in near)
            return f"No LoRA is named {shown}; near are {names}."
        known = len(self.loras)
        hint = f"/info lists the known ones ({known})" if known else "this server has none"
        return f"No LoRA is named {shown}; {hint}."


NO_ADDONS = Registry({}, {})
"""Nothing can be named."""


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")


_NORMALS: tuple[Callable[[str], str], ...] = (str, str.lower, slug)
"""Ways to read a name, each more tolerant than the one before."""


def _free_name(found: Found, taken: Container[tuple[AddonKind, str]]) -> str | None:
    """Return the name by which a thing is shown; None if an earlier source has all of its names."""
    names = (found.name, found.full_name)
    return next((name for name in names if (found.kind, name.lower()) not in taken), None)


def _free_key(name: str, kind: AddonKind, keys: Container[str]) -> str:
    """Return the `slug` of a name, or the like where another thing has it."""
    number, key = 1, slug(name)
    while kind.prefix + key in keys:
        number += 1
        key = f"{slug(name)} ({number})"
    return key
