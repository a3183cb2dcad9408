"""The manifest of an add-on's entry: its origin, contents and the models it fits.

It is written last, so a directory without it is half-made. The service reads it before anything
heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Self

from lpw_sdxl.embedding.preflight import PAIR_NAMING
from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.left_out import BY_IGNORE_UNKNOWN
from lpw_sdxl.store.command import import_command
from lpw_sdxl.store.kind import AddonKind, kind_of_store_name, store_name
from lpw_sdxl.store.manifest import EntryManifest, read_entry
from lpw_sdxl.store.unreadable import why_unreadable


@dataclass(frozen=True)
class AddonDetails:
    """The contents of the file; what doesn't belong to the kind is empty.

    Attributes:
        kinds: of a LoRA's modules, such as `LoRA` or `LoCon`; an upscaler's network.
        naming: whose names the file's tensors had, such as `kohya`.
        ranks: sorted, each once.
        alphas: likewise; empty if they are not known from the header.
        modules: number of changed modules by component.
        ignored: number of tensors that are left out, by the reason or by their name.
        vectors: of an embedding: how many tokens it takes; 0 for others.
        alpha_note: where a LoRA's alphas come from, unless from its tensors.
        alpha_file: PEFT's file beside the source, with its digest, if an alpha is from there.
        asked_alpha: the alpha that the user stated, if a module has it; else None.
        scale: of an upscaler: how many times larger its pictures are on each side; 0 for others.
        channels: of an upscaler: its network's, between convolutions.
        blocks: of an upscaler: its network's.
    """

    kinds: tuple[str, ...] = ()
    naming: str = ""
    ranks: tuple[int, ...] = ()
    alphas: tuple[float, ...] = ()
    modules: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    vectors: int = 0
    alpha_note: str = ""
    alpha_file: str = ""
    asked_alpha: float | None = None
    scale: int = 0
    channels: int = 0
    blocks: int = 0

    @property
    def command_arguments(self) -> str:
        """Return what the command that imports such a file again has instead of FILE."""
        files = "FIRST SECOND" if self.naming == PAIR_NAMING else "FILE"
        alpha = f" --alpha {self.asked_alpha!r}" if self.asked_alpha is not None else ""
        is_ignoring = any(reason.endswith(BY_IGNORE_UNKNOWN) for reason in self.ignored)
        return f"{files}{alpha}{' --ignore-unknown' * is_ignoring}"


@dataclass(frozen=True, kw_only=True)
class AddonManifest(EntryManifest):
    """An entry of the store that is no model.

    Attributes:
        kind: what it is.
        fits: which models it fits: for a LoRA `lora.targets.signature` of their parameters, for an
            embedding the widths of their two text encoders by `embedding.preflight.embedding_fit`;
            empty for an upscaler, which fits all.
        fits_name: the same for a reader: `SDXL`, a model's tag, or `any model`.
        details: what is in the file.
    """

    FORMAT_VERSION = 1

    kind: AddonKind
    fits: str
    fits_name: str
    details: AddonDetails

    @property
    def tag(self) -> str:
        """Return the entry's tag in the store."""
        return f"{store_name(self.kind, self.name)}:{self.origin.sha256[:12]}"

    @classmethod
    def unusable(cls, directory: Path, what: str, known: Self | None = None) -> AddonError:
        """Return the error that states what is wrong with an entry and how to import it again."""
        name, arguments = directory.parent.name, "FILE"
        if known is None:
            kind = kind_of_store_name(name) or AddonKind.LORA
            users_name = name.removeprefix(kind.prefix)
        else:
            kind, users_name = known.kind, known.name
            arguments = known.details.command_arguments
        command = import_command(f"{kind} {arguments} --name {quote(users_name)} --force")
        return AddonError(
            f"The {kind.noun} {name}:{directory.name} {what}; import its file again with "
            f"`{command}`."
        )

    @classmethod
    def unreadable(cls, directory: Path, error: OSError) -> AddonError:
        """Return the error that states why an entry can't be read, and what would be right."""
        name = directory.parent.name
        kind = kind_of_store_name(name) or AddonKind.LORA
        return AddonError(
            f"The {kind.noun} {name}:{directory.name} can't be read: "
            f"{why_unreadable(directory, error)}."
        )

    def describe(self) -> dict[str, object]:
        """Return what the entry is as plain JSON values, without its files and empty details."""
        values = super().describe()
        details = values.pop("details")
        assert isinstance(details, dict)
        return values | {name: value for name, value in details.items() if value}


def read_addon_manifest(directory: Path) -> AddonManifest:
    """Read the manifest of an add-on.

    Raises:
        AddonError: it is missing, of another format version, or damaged.
    """
    manifest = read_entry(AddonManifest, directory)
    if set(manifest.files) != {manifest.kind.file_name}:
        raise manifest.unusable(directory, f"lists other files than {manifest.kind.file_name}")
    return manifest
