"""Whether the model store has this import already, found without converting anything."""

from __future__ import annotations

import logging
from dataclasses import fields

from lpw_sdxl.checkpoint import store
from lpw_sdxl.checkpoint.manifest import Manifest, read_manifest, verify_files
from lpw_sdxl.errors import CheckpointError, ModelError

IDENTITY = "source_identity"
"""The store entry's note of which file it was made from."""

_CHOICES = ("dtype", "prediction_type", "zero_terminal_snr", "ema", "vae")
"""What of a manifest the user's options decide."""

logger = logging.getLogger(__name__)


def find_by_identity(name: str, identity: str) -> tuple[str, Manifest] | None:
    """Return tag and manifest of the whole entry of this name made from this very file."""
    for entry in store.list_entries():
        if entry.tag.startswith(f"{name}:") and entry.metadata.get(IDENTITY) == identity:
            return find_whole(entry.tag)
    return None


def find_whole(tag: str) -> tuple[str, Manifest] | None:
    """Return an entry's tag and manifest if it is whole; a half-made or damaged one counts as none.

    Sizes alone are checked, so that the answer is quick; `verify TAG` reads every byte.
    """
    try:
        entry = store.find(tag)
        manifest = read_manifest(entry.path)
        verify_files(entry.path, manifest, contents=False)
    except ModelError as error:
        logger.info("no whole import of %s is there: %s", tag, error)
        return None
    return tag, manifest


def check_same(tag: str, known: Manifest, wanted: Manifest) -> None:
    """Check that a known import was made as this one would be.

    Raises:
        CheckpointError: it was made with other options; the first difference is named.
    """
    for field in fields(Manifest):
        there, asked = getattr(known, field.name), getattr(wanted, field.name)
        if field.name in _CHOICES and there != asked:
            raise CheckpointError(
                f"{tag} is imported with {field.name} {there or 'of its own'}, and "
                f"{asked or 'its own'} is asked for; --force replaces it, and --name gives the new "
                "one another name."
            )
