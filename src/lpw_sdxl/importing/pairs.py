"""The import of an embedding from two files, one for each text encoder.

Both files are had first, because one alone can't be judged; then the import is that of any file.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the steps that need it

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lpw_sdxl.embedding.preflight import examine_half
from lpw_sdxl.importing.addons import AddonImporter
from lpw_sdxl.importing.importer import ImportResult
from lpw_sdxl.importing.taking import FileTaker
from lpw_sdxl.weights.header import read_header


def import_pair(
    importer: AddonImporter, taker: FileTaker, texts: Sequence[str], *, remove_source: bool = False
) -> ImportResult:
    """Import the pair that the user named, in any order.

    Args:
        importer: of an embedding; its SHA-256 is the joined one of both files.
        taker: of the files.
        texts: two times a path, or what one of the kinds of sources takes.
        remove_source: whether downloads are removed after the import.

    Raises:
        AddonError: they are no pair, or can't be imported; the store is as it was.
        CheckpointError: one can't be had, or is damaged.
    """
    from lpw_sdxl.importing.entry import SHA256, find_known, import_entry, needs_row, store_need

    sources = [taker.parse(text, remove_source=remove_source) for text in texts]
    sha256 = importer.options.sha256
    known = None if sha256 is None else find_known(importer, {SHA256: sha256})
    if known is not None:
        return known
    first, second = (taker.take(source, _check_half) for source in sources)
    importer = replace(importer, second=second.path)
    opened = importer.open(first.path)
    needs = [store_need(importer.store_bytes(opened))]
    taker.console.show([needs_row(needs), *importer.rows(opened)])
    halves = sorted((first, second), key=lambda half: opened.sources.index(half.path))
    public = " + ".join(half.public for half in halves)
    notes = halves[0].notes.or_else(halves[1].notes)
    result = import_entry(importer, opened, public, notes, taker.console.progress)
    if remove_source:
        for half in halves:
            half.remove()
    return result


def _check_half(path: Path, full_size: int) -> None:
    """Judge a download by its first bytes."""
    examine_half(read_header(path, full_size))
