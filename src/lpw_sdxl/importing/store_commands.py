"""The commands that read or empty the model store: list, remove, verify; and inspect, of a file."""

# ruff: noqa: PLC0415 - what is heavy is imported by the commands that need it

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lpw_sdxl.errors import AddonError, ModelError
from lpw_sdxl.importing.console import ImportConsole, facts

if TYPE_CHECKING:
    from lpw_sdxl.addon.manifest import AddonManifest
    from lpw_sdxl.store.entries import StoreEntry
    from lpw_sdxl.store.manifest import Manifest


def list_entries(arguments: argparse.Namespace) -> None:
    """Print every entry of a kind, or all: tag, what it is, and whether it is the newest."""
    from lpw_sdxl.store import entries

    for entry in entries.list_entries():
        if arguments.kind not in (None, entry.kind or "model"):
            continue
        try:
            columns = _columns(entry)
            is_latest = entries.find_entry(entry.name).tag == entry.tag
        except (ModelError, AddonError):
            is_latest, columns = False, []
        if not columns or not entry.metadata:
            print(entry.tag, "damaged: `verify` shows what is wrong", sep="  ")
            continue
        print(entry.tag, *columns, *(["latest"] if is_latest else []), sep="  ")


def _columns(entry: StoreEntry) -> list[str]:
    """Return what an entry is, in columns; its sizes are checked."""
    from lpw_sdxl.store.manifest import Manifest
    from lpw_sdxl.store.verification import Depth, verify_files

    manifest = _read_manifest(entry)
    verify_files(entry.path, manifest, Depth.SIZES)
    if isinstance(manifest, Manifest):
        size, dtype = str(manifest.native_size), manifest.dtype
        return [size, dtype, manifest.schedule_type, manifest.origin.file]
    vectors = f"{manifest.details.vectors} vectors" if manifest.details.vectors else ""
    scale = f" x{manifest.details.scale}" if manifest.details.scale else ""
    what = (", ".join(manifest.details.kinds) or vectors) + scale
    base = manifest.origin.notes.base_model or manifest.fits_name
    return [f"{manifest.kind.noun} {manifest.name!r}", what, base, manifest.origin.file]


def _read_manifest(entry: StoreEntry) -> Manifest | AddonManifest:
    from lpw_sdxl.addon.manifest import read_addon_manifest
    from lpw_sdxl.store.manifest import read_manifest

    return read_manifest(entry.path) if entry.kind is None else read_addon_manifest(entry.path)


def remove(arguments: argparse.Namespace) -> None:
    """Remove an entry."""
    from lpw_sdxl.store import publication

    tag = publication.remove(arguments.tag)
    print("Removed:")
    print(tag)


def verify(arguments: argparse.Namespace) -> None:
    """Check an entry's files against its manifest."""
    from lpw_sdxl.store.entries import find_entry
    from lpw_sdxl.store.verification import Depth, verify_files

    entry = find_entry(arguments.tag)
    manifest = _read_manifest(entry)
    verify_files(entry.path, manifest, Depth.ALL_DIGESTS)
    count = len(manifest.files)
    with ImportConsole() as console:
        console.show(facts(manifest.describe()))
    print(f"All {count} files are as they were imported:" if count > 1 else "The file is whole:")
    print(entry.tag)


def inspect(arguments: argparse.Namespace) -> None:
    """Show what a file is, from its header."""
    from lpw_sdxl.importing.inspection import inspect_file

    rows = inspect_file(arguments.file)
    with ImportConsole() as console:
        console.show(rows)
