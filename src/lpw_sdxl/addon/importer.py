"""The import of a LoRA or an embedding: from a judged file to a verified entry of the store."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lpw_sdxl import __version__
from lpw_sdxl.addon.manifest import AddonManifest, read_addon_manifest
from lpw_sdxl.addon.opened import OpenedAddon
from lpw_sdxl.checkpoint.importer import checked_sha256, model_need, publish
from lpw_sdxl.checkpoint.known import SHA256, find_whole
from lpw_sdxl.checkpoint.options import ImportResult
from lpw_sdxl.conditioning.mentions import NAME
from lpw_sdxl.download.filename import DEFAULT_NAME
from lpw_sdxl.errors import AddonError
from lpw_sdxl.store import entries, publication
from lpw_sdxl.store.kind import AddonKind, kind_of_store_name, slug, store_name
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.weights.files import file_stamp, record_file
from lpw_sdxl.weights.header import CheckpointHeader, read_header
from lpw_sdxl.weights.progress import Progress
from lpw_sdxl.weights.text import clean_text

MAX_NAME = 100
"""Characters of a name."""

_ALPHA = "/alpha"
_ALPHAS_AT_MOST = 64

_FORBIDDEN = frozenset("<>:/\\")
"""What a name can't hold: `<lora:NAME:1>` could not be read, or it would look like a path."""


@dataclass(frozen=True)
class AddonOptions:
    """How a LoRA or an embedding is imported.

    Attributes:
        kind: what the file must be.
        name: as users will write it; None for the file's name without its ending.
        model: tag of the model that it must fit; None for any of the store's, or SDXL's own.
        sha256: what the file's SHA-256 must be, or None.
        force: whether an entry of the same tag is replaced.
    """

    kind: AddonKind
    name: str | None = None
    model: str | None = None
    sha256: str | None = None
    force: bool = False


def import_addon(
    opened: OpenedAddon, options: AddonOptions, origin: Origin, progress: Progress
) -> ImportResult:
    """Import a file into the model store; a failure leaves the store as it was.

    Args:
        opened: the file.
        options: how.
        origin: what is known of it without its header.
        progress: told how far it is.

    Raises:
        AddonError: the file is damaged, its name is taken, or it was imported for another model.
        CheckpointError: it is not the expected one, or there is no room.
    """
    name = choose_name(options, opened.header)
    with publication.exclusive_import() as workshop:
        _check_free(opened.kind, name)
        path = opened.header.path
        sha256 = checked_sha256(path, options.sha256, progress)
        manifest = _describe(opened, name, origin, sha256)
        own = store_name(opened.kind, name)
        known = None if options.force else _find(lambda other: other == own, sha256)
        if known is not None:
            _check_same_fit(known, opened)
            return ImportResult(known.tag, was_known=True)

        def fill(directory: Path) -> AddonManifest:
            file = directory / opened.kind.file_name
            opened.write(file, progress)
            if file_stamp(path) != opened.identity:
                raise AddonError(f"{path.name} changed while it was imported; import it again.")
            alphas = _read_alphas(file) or opened.details.alphas
            details = replace(opened.details, alphas=alphas)
            return replace(manifest, files={file.name: record_file(file)}, details=details)

        need = model_need(opened.header.file_size)
        return publish(manifest, opened.identity, need, workshop, fill)


def find_imported(sha256: str | None, options: AddonOptions) -> ImportResult | None:
    """Find an import of the file with this SHA-256, so that it need not be downloaded.

    Without a name in the options, an import under any name is the one.
    """
    if sha256 is None or options.force or options.model is not None:
        return None  # whether it fits a model is told by the file
    wanted = None if options.name is None else store_name(options.kind, options.name)
    known = _find(
        lambda name: kind_of_store_name(name) is options.kind and wanted in (None, name), sha256
    )
    return None if known is None else ImportResult(known.tag, was_known=True)


def choose_name(options: AddonOptions, header: CheckpointHeader) -> str:
    """Return the name that requests will use: the one asked for, else that of the file.

    Raises:
        AddonError: it can't be written in a prompt, or nothing of it is left in the store.
    """
    if options.name is None and header.name == DEFAULT_NAME:
        raise AddonError(f"{header.name} is a file name that tells nothing; give one with --name.")
    name = Path(header.name).stem if options.name is None else options.name
    if name != clean_text(name) or set(name) & _FORBIDDEN or not 0 < len(name) <= MAX_NAME:
        raise AddonError(
            f"The name {clean_text(name)[:MAX_NAME]!r} can't be used; 1 to {MAX_NAME} characters "
            "on one line without < > : / and \\ are right: give one with --name."
        )
    if not slug(name):
        raise AddonError(
            f"The name {name!r} has neither a letter nor a digit; give one with --name."
        )
    if options.kind is AddonKind.EMBEDDING and not NAME.fullmatch(name):
        raise AddonError(
            f"The name {name!r} can't be used for an embedding, which prompts name by a word; "
            "letters A to Z, digits, '.', '_' and '-' are right: give one with --name, such as "
            f"--name {slug(name)}."
        )
    return name


def _check_free(kind: AddonKind, name: str) -> None:
    """Check that no other name is the same in the store, as `a+b` and `a b` are.

    Raises:
        AddonError: the name is taken.
    """
    for entry in entries.list_entries(lambda other: other == store_name(kind, name)):
        other = str(entry.metadata.get("name", name))
        if other.lower() != name.lower():
            raise AddonError(
                f"The name {name!r} is the same in the store as {other!r}, which is taken by "
                f"{entry.tag}: choose another --name, or --name {other!r} for a new version of it."
            )


def _find(is_named: Callable[[str], bool], sha256: str) -> AddonManifest | None:
    return find_whole(read_addon_manifest, is_named, {SHA256: sha256})


def _check_same_fit(known: AddonManifest, opened: OpenedAddon) -> None:
    if known.fits != opened.fits:
        raise AddonError(
            f"{known.tag} is imported for {known.fits_name}, and {opened.fits_name} is asked for; "
            "--force replaces it, and --name gives the new one another name."
        )


def _describe(opened: OpenedAddon, name: str, origin: Origin, sha256: str) -> AddonManifest:
    """Say what the entry will be; its files are not known yet. Civitai's word goes first."""
    return AddonManifest(
        **asdict(origin.or_else(opened.told)),
        kind=opened.kind,
        name=name,
        source_file=opened.header.name,
        source_size=opened.header.file_size,
        source_sha256=sha256,
        fits=opened.fits,
        fits_name=opened.fits_name,
        details=opened.details,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        importer_version=__version__,
        files={},
    )


def _read_alphas(path: Path) -> tuple[float, ...]:
    """Return the different alphas of a canonical LoRA file, sorted; the first 64 of very many."""
    values = set()
    with path.open("rb") as file:
        for name, info in read_header(path).tensors.items():
            if name.endswith(_ALPHA) and info.dtype == "F32":
                file.seek(info.start)
                values.add(struct.unpack("<f", file.read(4))[0])
    return tuple(sorted(values)[:_ALPHAS_AT_MOST])
