"""What an entry of a LoRA or an embedding holds, where it came from and which models it fits.

It is written last, so a directory without it is half-made. The service reads it before anything
heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from lpw_sdxl.errors import AddonError
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.manifest import MANIFEST_FILE, find_flaw, write_json
from lpw_sdxl.weights.files import FileRecord

FORMAT_VERSION = 1


@dataclass(frozen=True)
class AddonDetails:
    """What is in the file; what doesn't belong to the kind is empty.

    Attributes:
        kinds: of a LoRA's modules, such as `LoRA` or `LoCon`.
        naming: whose names the file's tensors had, such as `kohya`.
        ranks: sorted, each once.
        alphas: likewise; empty if they are not known from the header.
        modules: number of changed modules by component.
        ignored: number of unused tensors by the reason that they are harmless.
        vectors: of an embedding: how many tokens it takes; 0 for a LoRA.
    """

    kinds: tuple[str, ...] = ()
    naming: str = ""
    ranks: tuple[int, ...] = ()
    alphas: tuple[float, ...] = ()
    modules: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    vectors: int = 0


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class AddonManifest:
    """An entry of the store that is no model.

    Attributes:
        kind: what it is.
        name: as users write it.
        source: where the file came from, such as `civitai:128078`; no query, no key.
        source_file: the file's name, without its folder.
        source_size: of the file, bytes.
        source_sha256: of the file.
        title: what its makers call it, or empty.
        base_model: the family it was made for, as its makers say, or empty.
        trained_words: words that it was trained to react to.
        fits: which models it fits: for a LoRA `lora.targets.signature` of their parameters, for an
            embedding the widths of their two text encoders by `embedding.preflight.embedding_fit`.
        fits_name: the same for a reader: `SDXL`, or a model's tag.
        details: what is in the file.
        created: when it was imported, ISO 8601 in UTC.
        importer_version: our version at that time.
        files: every other file by its path within the directory, with `/` between parts.
    """

    kind: AddonKind
    name: str
    source: str
    source_file: str
    source_size: int
    source_sha256: str
    title: str
    base_model: str
    trained_words: tuple[str, ...]
    fits: str
    fits_name: str
    details: AddonDetails
    created: str
    importer_version: str
    files: Mapping[str, FileRecord]

    @property
    def autov2(self) -> str:
        """Return the short hash that Civitai and A1111 call a file by."""
        return self.source_sha256[:10].upper()

    def describe(self) -> dict[str, object]:
        """Return what the entry is as plain JSON values, without its files and empty details."""
        values = asdict(self)
        details = values.pop("details")
        del values["files"]
        values |= {name: _plain(value) for name, value in details.items() if value}
        return values | {
            "kind": self.kind.value,
            "trained_words": list(self.trained_words),
            "source_autov2": self.autov2,
        }


def write_addon_manifest(directory: Path, manifest: AddonManifest) -> None:
    """Write the manifest in one move: it is there whole, or not at all."""
    content = asdict(manifest) | {
        "format_version": FORMAT_VERSION,
        "files": {path: record._asdict() for path, record in sorted(manifest.files.items())},
    }
    write_json(directory / MANIFEST_FILE, content)


def read_addon_manifest(directory: Path) -> AddonManifest:
    """Read the manifest of a LoRA or an embedding.

    Raises:
        AddonError: it is missing, of another format version, or damaged.
    """
    try:
        content = (directory / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise _unusable(directory, f"has no {MANIFEST_FILE} that can be read") from error
    try:
        values = _JSON.validate_json(content)
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise _unusable(directory, f"has a manifest of another format ({version!r:.20})")
        manifest = _MANIFEST.validate_python(values)
    except (ValidationError, RecursionError) as error:
        raise _unusable(directory, f"has a damaged {MANIFEST_FILE}") from error
    if set(manifest.files) != {manifest.kind.file_name}:
        raise _unusable(directory, f"lists other files than {manifest.kind.file_name}")
    return manifest


def verify_addon_files(directory: Path, manifest: AddonManifest, *, contents: bool = True) -> None:
    """Check that a directory holds exactly what its manifest lists.

    Args:
        directory: the entry's directory.
        manifest: its manifest.
        contents: whether SHA-256 is checked too; without it, names and sizes only.

    Raises:
        AddonError: a file is missing, unexpected or different; the first one is named.
    """
    flaw = find_flaw(directory, manifest.files, contents=contents)
    if flaw:
        raise _unusable(directory, flaw, manifest)


_JSON: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])
_MANIFEST = TypeAdapter(AddonManifest)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _unusable(directory: Path, what: str, manifest: AddonManifest | None = None) -> AddonError:
    """Say what is wrong with an entry, and the command that mends it."""
    name = directory.parent.name
    if manifest is None:
        kind = next((kind for kind in AddonKind if name.startswith(kind.prefix)), AddonKind.LORA)
        users_name = name.removeprefix(kind.prefix)
    else:
        kind, users_name = manifest.kind, manifest.name
    return AddonError(
        f"The {kind.noun} {name}:{directory.name} {what}; import its file again with "
        f"`python model_import.py {kind} FILE --name {quote(users_name)} --force`."
    )
