"""The import: from a checkpoint file to a verified entry of the model store.

What is cheap is asked first: the header tells what the file is, the store whether it is known.
Torch is imported only when a conversion follows.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from lpw_sdxl import __version__
from lpw_sdxl.checkpoint.known import (
    IDENTITY,
    KnownImport,
    check_same,
    find_by_identity,
    find_by_sha256,
    vae_label,
)
from lpw_sdxl.checkpoint.options import ImportOptions, ImportResult
from lpw_sdxl.checkpoint.provenance import Provenance, provenance_of
from lpw_sdxl.checkpoint.selection import Checkpoint, Selection, identity_of, open_checkpoint
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.store import entries, publication
from lpw_sdxl.store.manifest import DEMO_SOURCE, Manifest, make_tag, write_manifest
from lpw_sdxl.store.space import Need, check_space, full_disk_told
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import hash_file
from lpw_sdxl.weights.progress import Progress

SPARE_BYTES = 64 * 1024 * 1024
"""Configuration, tokenizers and the file system's own needs."""


def import_checkpoint(
    checkpoint: Checkpoint, options: ImportOptions, provenance: Provenance, progress: Progress
) -> ImportResult:
    """Import a checkpoint into the model store; a failure leaves the store as it was.

    Raises:
        CheckpointError: the file is damaged or not the expected one, or there is no room.
    """
    entries.check_name(options.name)
    with publication.exclusive_import() as workshop:
        return _import(checkpoint, options, provenance, progress, workshop)


def import_demo(path: Path, *, force: bool, progress: Progress) -> ImportResult:
    """Import the demo checkpoint that the repository holds, in float32 and as any other.

    Raises:
        CheckpointError: the file is missing or damaged, or there is no room.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; it comes with a clone of the repository.")
    checkpoint = open_checkpoint(path, Selection())
    options = ImportOptions(dtype=CheckpointDtype.FLOAT32, force=force)
    provenance = provenance_of(DEMO_SOURCE, checkpoint.header.metadata)
    return import_checkpoint(checkpoint, options, provenance, progress)


def _import(
    checkpoint: Checkpoint,
    options: ImportOptions,
    provenance: Provenance,
    progress: Progress,
    workshop: Path,
) -> ImportResult:
    """Import a checkpoint while the store's lock is held."""
    known = None if options.force else find_by_identity(options.name, checkpoint.identity)
    if known is not None and options.sha256 in (None, known.manifest.source_sha256):
        return _known(known, options, checkpoint.selection)

    from lpw_sdxl.checkpoint.convert import convert, prepare
    from lpw_sdxl.checkpoint.verify import verify_directory

    conversion = prepare(checkpoint.header, checkpoint.summary, options.dtype)
    sha256 = checked_sha256(checkpoint.path, options.sha256, progress)
    known = None if options.force else find_by_sha256(options.name, sha256)
    if known is not None:
        return _known(known, options, checkpoint.selection)
    check_space([model_need(conversion.weight_bytes)])
    manifest = _describe(checkpoint, options, provenance, conversion.plan.ignored, sha256)
    tag = make_tag(options.name, sha256)
    metadata = manifest.describe() | {IDENTITY: checkpoint.identity}
    with full_disk_told(entries.store_directory()):
        entry = publication.prepare_publication(tag, metadata, workshop)
        files = convert(conversion, entry.directory, progress)
        verify_directory(entry.directory, conversion, progress)
        _check_unchanged(checkpoint)
        write_manifest(entry.directory, replace(manifest, files=files))
        entry.publish()
    return ImportResult(tag, was_known=False)


def find_imported(
    sha256: str | None, options: ImportOptions, selection: Selection
) -> ImportResult | None:
    """Find an import of the checkpoint with this SHA-256, so that it need not be downloaded.

    Raises:
        CheckpointError: it was made with other options.
    """
    entries.check_name(options.name)
    if sha256 is None or options.force:
        return None
    known = find_by_sha256(options.name, sha256)
    return None if known is None else _known(known, options, selection)


def model_need(weight_bytes: int) -> Need:
    """Return the room that a model of this size takes in the store."""
    return Need("the model", entries.store_directory(), weight_bytes + SPARE_BYTES, "BENTOML_HOME")


def checked_sha256(path: Path, expected: str | None, progress: Progress) -> str:
    """Return a file's SHA-256.

    Raises:
        CheckpointError: it is not the expected one.
    """
    size = path.stat().st_size
    progress("hash", 0, size)
    found = hash_file(path, lambda done: progress("hash", done, size))
    if expected is not None and found != expected:
        raise CheckpointError(
            f"{path.name} has the SHA-256 {found}; {expected} was asked for: "
            "download it again, or correct --sha256."
        )
    return found


def _known(known: KnownImport, options: ImportOptions, selection: Selection) -> ImportResult:
    check_same(known, options, selection)
    return ImportResult(known.tag, was_known=True)


def _describe(
    checkpoint: Checkpoint,
    options: ImportOptions,
    provenance: Provenance,
    ignored: Mapping[str, int],
    sha256: str,
) -> Manifest:
    """Say what the entry will be; its files are not known yet."""
    summary, selection = checkpoint.summary, checkpoint.selection
    return Manifest(
        name=options.name,
        source=provenance.source,
        source_file=checkpoint.header.name,
        source_size=checkpoint.header.file_size,
        source_sha256=sha256,
        title=provenance.title,
        base_model=provenance.base_model,
        trained_words=provenance.trained_words,
        native_size=summary.native_size,
        dtype=options.dtype.value,
        prediction_type=summary.prediction.type.value,
        zero_terminal_snr=summary.prediction.has_zero_snr,
        ema=selection.use_ema,
        vae=vae_label(selection),
        ignored=ignored,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        importer_version=__version__,
        files={},
    )


def _check_unchanged(checkpoint: Checkpoint) -> None:
    files = {checkpoint.path: checkpoint.identity}
    if checkpoint.selection.vae is not None:
        files[checkpoint.selection.vae] = checkpoint.vae_identity
    for path, identity in files.items():
        if identity_of(path) != identity:
            raise CheckpointError(f"{path.name} changed while it was imported; import it again.")
