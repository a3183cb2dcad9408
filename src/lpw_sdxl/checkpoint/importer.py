"""The import: from a checkpoint file to a verified entry of the model store.

What is cheap is asked first: the header tells what the file is, the store whether it is known.
Torch is imported only when a conversion follows.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from lpw_sdxl import __version__
from lpw_sdxl.checkpoint.known import IDENTITY, SHA256, check_same, find_whole, vae_label
from lpw_sdxl.checkpoint.notes import header_origin
from lpw_sdxl.checkpoint.options import ImportOptions, ImportResult
from lpw_sdxl.checkpoint.selection import Checkpoint, Selection, open_checkpoint
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.store import entries, publication
from lpw_sdxl.store.manifest import (
    DEMO_SOURCE,
    EntryManifest,
    Manifest,
    read_manifest,
    write_manifest,
)
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.store.space import Need, check_space, full_disk_told
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import file_stamp, hash_file
from lpw_sdxl.weights.progress import Progress

BASE_MODEL = "SDXL 1.0"
"""What every checkpoint that is served descends from, where nobody names a later family."""
SPARE_BYTES = 64 * 1024 * 1024
"""Configuration, tokenizers and the file system's own needs."""


def import_checkpoint(
    checkpoint: Checkpoint, options: ImportOptions, origin: Origin, progress: Progress
) -> ImportResult:
    """Import a checkpoint into the model store; a failure leaves the store as it was.

    Raises:
        CheckpointError: the file is damaged or not the expected one, or there is no room.
    """
    entries.check_name(options.name)
    with publication.exclusive_import() as workshop:
        asked = {SHA256: options.sha256} if options.sha256 else {}
        known = _find({IDENTITY: checkpoint.identity} | asked, options, checkpoint.selection)
        if known is not None:
            return known

        from lpw_sdxl.checkpoint.convert import convert, prepare
        from lpw_sdxl.checkpoint.verify import verify_directory

        conversion = prepare(checkpoint.header, checkpoint.summary, options.dtype)
        sha256 = checked_sha256(checkpoint.header.path, options.sha256, progress)
        known = _find({SHA256: sha256}, options, checkpoint.selection)
        if known is not None:
            return known
        manifest = _describe(checkpoint, options, origin, conversion.plan.ignored, sha256)

        def fill(directory: Path) -> Manifest:
            files = convert(conversion, directory, progress)
            verify_directory(directory, conversion, progress)
            _check_unchanged(checkpoint)
            return replace(manifest, files=files)

        need = model_need(conversion.weight_bytes)
        return publish(manifest, checkpoint.identity, need, workshop, fill)


def import_demo(path: Path, *, force: bool, progress: Progress) -> ImportResult:
    """Import the demo checkpoint that the repository holds, in float32 and as any other.

    Raises:
        CheckpointError: the file is missing or damaged, or there is no room.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; it comes with a clone of the repository.")
    checkpoint = open_checkpoint(path, Selection())
    options = ImportOptions(dtype=CheckpointDtype.FLOAT32, force=force)
    return import_checkpoint(checkpoint, options, Origin(DEMO_SOURCE), progress)


def publish(
    manifest: EntryManifest,
    identity: str,
    need: Need,
    workshop: Path,
    fill: Callable[[Path], EntryManifest],
) -> ImportResult:
    """Make an entry of the store.

    Args:
        manifest: what it will be; its files are not known yet.
        identity: of the file that it is made from, by `weights.files.file_stamp`.
        need: the room that it takes.
        workshop: the folder of `exclusive_import`.
        fill: writes the files into a directory and returns the whole manifest.
    """
    check_space([need])
    metadata = manifest.describe() | {IDENTITY: identity}
    with full_disk_told(entries.store_directory()):
        entry = publication.prepare_publication(manifest.tag, metadata, workshop)
        write_manifest(entry.directory, fill(entry.directory))
        entry.publish()
    return ImportResult(manifest.tag, was_known=False)


def find_imported(
    sha256: str | None, options: ImportOptions, selection: Selection
) -> ImportResult | None:
    """Find an import of the checkpoint with this SHA-256, so that it need not be downloaded.

    Raises:
        CheckpointError: it was made with other options.
    """
    entries.check_name(options.name)
    return None if sha256 is None else _find({SHA256: sha256}, options, selection)


def _find(
    notes: Mapping[str, str], options: ImportOptions, selection: Selection
) -> ImportResult | None:
    if options.force:
        return None
    known = find_whole(read_manifest, lambda name: name == options.name, notes)
    if known is None:
        return None
    check_same(known, options, selection)
    return ImportResult(known.tag, was_known=True)


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


def _describe(
    checkpoint: Checkpoint,
    options: ImportOptions,
    origin: Origin,
    ignored: Mapping[str, int],
    sha256: str,
) -> Manifest:
    """Say what the entry will be; its files are not known yet."""
    summary, selection = checkpoint.summary, checkpoint.selection
    told = origin.or_else(header_origin(checkpoint.header)).or_else(Origin("", "", BASE_MODEL))
    return Manifest(
        **asdict(told),
        name=options.name,
        source_file=checkpoint.header.name,
        source_size=checkpoint.header.file_size,
        source_sha256=sha256,
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
    files = {checkpoint.header.path: checkpoint.identity}
    if checkpoint.selection.vae is not None:
        files[checkpoint.selection.vae] = checkpoint.vae_identity
    for path, identity in files.items():
        if file_stamp(path) != identity:
            raise CheckpointError(f"{path.name} changed while it was imported; import it again.")
