"""From an opened file to a verified entry of the model store, for every kind of file.

What is cheap is asked first: whether the store has the file already, by its stamp; whether there is
room; then whether the store has it by its SHA-256. The entry is filled beside the store and moved
into it when it is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.importing.console import Row
from lpw_sdxl.importing.importer import EntryDraft, Importer, ImportResult, Opened, OpenedFile
from lpw_sdxl.store import entries, publication
from lpw_sdxl.store.manifest import AnyManifest, write_manifest
from lpw_sdxl.store.origin import AuthorNotes, Origin
from lpw_sdxl.store.space import (
    SPARE_BYTES,
    Need,
    check_space,
    describe_needs,
    full_disk_named,
)
from lpw_sdxl.weights.files import file_stamp, hash_file
from lpw_sdxl.weights.progress import Progress
from lpw_sdxl.weights.text import clean_text

IDENTITY = "source_identity"
"""The store's note of which file an entry was made from: its `file_stamp`; both of a pair."""
SHA256 = "source_sha256"
"""The store's note of that file's SHA-256; of a pair, as `joined_sha256` makes it."""
SIZE = "source_size"
"""The store's note of that size, bytes: the opened header's `file_size`."""


def import_entry(
    importer: Importer[Opened, AnyManifest],
    opened: Opened,
    source: str,
    notes: AuthorNotes,
    progress: Progress,
) -> ImportResult:
    """Import a file into the model store; a failure leaves the store as it was.

    Args:
        importer: of the file's kind.
        opened: the file.
        source: where it came from, without query or key.
        notes: its author's, as the source has them; they go before the header's.
        progress: called with how far the work is.

    Raises:
        CheckpointError: the file is damaged or not the expected one, or there is no room.
        AddonError: likewise, of an add-on.
    """
    options = importer.options
    stamp = _joined_stamp(opened)
    with publication.exclusive_import() as workshop:
        importer.check_name(opened)
        asked = {SHA256: options.sha256} if options.sha256 else {}
        known = find_known(importer, {IDENTITY: stamp} | asked, opened)
        if known is not None:
            return known
        _check_room(importer, opened)
        draft = importer.draft(opened)
        sha256 = _checked_sha256(opened.sources, options.sha256, progress)
        known = find_known(importer, {SHA256: sha256}, opened)
        if known is not None:
            return known
        origin = _origin(opened, source, sha256, notes)
        manifest = draft.describe(origin)
        fill = _checked_fill(draft, opened, progress)
        _publish(manifest, stamp, draft.weight_bytes, workshop, fill)
    return ImportResult(manifest.tag, was_known=False)


def find_known(
    importer: Importer[Opened, AnyManifest],
    metadata: Mapping[str, str],
    opened: Opened | None = None,
) -> ImportResult | None:
    """Find the entry that an import would make, unless it is to be replaced.

    Raises:
        LpwSdxlError: it is there, and was made with other options.
    """
    if importer.options.force:
        return None
    known = importer.find(metadata, opened)
    return None if known is None else ImportResult(known.tag, was_known=True)


def store_need(weight_bytes: int, *, is_estimate: bool = False) -> Need:
    """Return the room that an entry with tensors of this size takes in the store."""
    folder, size = entries.store_directory(), weight_bytes + SPARE_BYTES
    return Need("the entry", folder, size, entries.store_variable(), is_estimate)


def needs_row(needs: Sequence[Need]) -> Row:
    """Return the row that shows, before an import begins, what room it takes."""
    return "needs", describe_needs(needs)


def _check_room(importer: Importer[Opened, AnyManifest], opened: Opened) -> None:
    """Check the room before the file is hashed, unless the hash may show that none is needed.

    A copy of a file that was imported is known by its SHA-256 alone, and has that file's size.

    Raises:
        CheckpointError: there is too little.
    """
    try:
        check_space([store_need(importer.store_bytes(opened))])
    except CheckpointError:
        size = opened.header.file_size
        sizes = (entry.metadata.get(SIZE, size) for entry in entries.list_entries())
        if importer.options.force or size not in sizes:
            raise


def _checked_fill(
    draft: EntryDraft[AnyManifest], opened: OpenedFile, progress: Progress
) -> Callable[[Path, AnyManifest], AnyManifest]:
    """Return what fills a directory, and refuses files that changed meanwhile."""

    def fill(directory: Path, manifest: AnyManifest) -> AnyManifest:
        whole = draft.fill(directory, manifest, progress)
        for path, stamp in opened.stamps.items():
            if file_stamp(path) != stamp:
                raise CheckpointError(
                    f"{path.name} changed while it was imported; import it again."
                )
        return whole

    return fill


def _publish(
    manifest: AnyManifest,
    stamp: str,
    weight_bytes: int,
    workshop: Path,
    fill: Callable[[Path, AnyManifest], AnyManifest],
) -> None:
    """Fill a directory of the workshop, its manifest last, and move it into the store."""
    check_space([store_need(weight_bytes)])
    # BentoML's note of it never changes, as defaults may.
    described = {key: value for key, value in manifest.describe().items() if key != "defaults"}
    metadata = described | {IDENTITY: stamp}
    with full_disk_named(entries.store_directory(), entries.store_variable()):
        entry = publication.prepare_publication(manifest.tag, metadata, workshop)
        write_manifest(entry.directory, fill(entry.directory, manifest))
        entry.publish()


def joined_sha256(digests: Sequence[str]) -> str:
    """Return the SHA-256 of an entry's files: that of the only one, or one over all of theirs.

    Of several, it is the SHA-256 of their hexadecimal digits one after another in ASCII, lower
    case, in the order of `OpenedFile.sources`.
    """
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode("ascii")).hexdigest()


def _joined_stamp(opened: OpenedFile) -> str:
    return " ".join(opened.stamps[path] for path in opened.sources)


def _joined_names(paths: Sequence[Path]) -> str:
    return " + ".join(clean_text(path.name) for path in paths)


def _origin(opened: OpenedFile, source: str, sha256: str, notes: AuthorNotes) -> Origin:
    header = opened.header
    name = header.name if len(opened.sources) == 1 else _joined_names(opened.sources)
    return Origin(source, name, header.file_size, sha256, notes.or_else(opened.notes))


def _checked_sha256(paths: Sequence[Path], expected: str | None, progress: Progress) -> str:
    """Return the SHA-256 of an entry's files.

    Raises:
        CheckpointError: it is not the expected one.
    """
    total = sum(path.stat().st_size for path in paths)
    hashed = 0

    def report(done: int) -> None:
        progress("hash", hashed + done, total)

    report(0)
    digests = []
    for path in paths:
        digests.append(hash_file(path, report))
        hashed += path.stat().st_size
    found = joined_sha256(digests)
    if expected is not None and found != expected:
        raise CheckpointError(
            f"{_joined_names(paths)} has the SHA-256 {found}; {expected} was asked for: "
            "download it again, or correct --sha256."
        )
    return found
