"""Whether the model store has this import already, found without converting anything."""

from __future__ import annotations

import logging
from typing import NamedTuple

from lpw_sdxl.checkpoint.inspect import Prediction, PredictionType
from lpw_sdxl.checkpoint.options import ImportOptions
from lpw_sdxl.checkpoint.selection import Selection
from lpw_sdxl.errors import CheckpointError, ModelError
from lpw_sdxl.store import entries
from lpw_sdxl.store.manifest import Manifest, make_tag, read_manifest, verify_files
from lpw_sdxl.weights.files import hash_file

IDENTITY = "source_identity"
"""The store entry's note of which file it was made from, by `selection.identity_of`."""

logger = logging.getLogger(__name__)


class KnownImport(NamedTuple):
    """A whole entry of the store and its manifest."""

    tag: str
    manifest: Manifest


def find_by_identity(name: str, identity: str) -> KnownImport | None:
    """Return the whole entry of this name that was made from this very file."""
    for entry in entries.list_entries():
        if entry.tag.startswith(f"{name}:") and entry.metadata.get(IDENTITY) == identity:
            return _find_whole(entry.tag)
    return None


def find_by_sha256(name: str, sha256: str) -> KnownImport | None:
    """Return the whole entry of this name that was made from a file with this SHA-256."""
    known = _find_whole(make_tag(name, sha256))
    return known if known and known.manifest.source_sha256 == sha256 else None


def check_same(known: KnownImport, options: ImportOptions, selection: Selection) -> None:
    """Check that a known import was made with these options; a prediction not given is any.

    Raises:
        CheckpointError: it was made with others; the first difference is named.
    """
    manifest = known.manifest
    prediction = Prediction(PredictionType(manifest.prediction_type), manifest.zero_terminal_snr)
    pairs = (
        (f"dtype {manifest.dtype}", f"dtype {options.dtype}"),
        (_weights(manifest.ema), _weights(selection.use_ema)),
        (_vae(manifest.vae), _vae(vae_label(selection))),
        (_predicts(prediction), _predicts(selection.prediction or prediction)),
    )
    for there, asked in pairs:
        if there != asked:
            raise CheckpointError(
                f"{known.tag} is imported with {there}, and {asked} is asked for; --force replaces "
                "it, and --name gives the new one another name."
            )


def vae_label(selection: Selection) -> str:
    """Return name and SHA-256 of the file that the VAE is taken from, or empty."""
    vae = selection.vae
    return "" if vae is None else f"{vae.name}, SHA-256 {hash_file(vae)}"


def _find_whole(tag: str) -> KnownImport | None:
    """Return an entry if it is whole; a half-made or damaged one counts as none.

    Sizes alone are checked, so that the answer is quick; `verify TAG` reads every byte.
    """
    try:
        entry = entries.find(tag)
        manifest = read_manifest(entry.path)
        verify_files(entry.path, manifest, contents=False)
    except ModelError as error:
        logger.info("no whole import of %s is there: %s", tag, error)
        return None
    return KnownImport(tag, manifest)


def _weights(ema: bool) -> str:
    return "EMA weights" if ema else "the UNet's own weights"


def _vae(label: str) -> str:
    sha256 = label.rpartition(" ")[2]  # the file's name doesn't matter
    return f"a VAE with the SHA-256 {sha256}" if label else "the checkpoint's own VAE"


def _predicts(prediction: Prediction) -> str:
    zero_snr = " and zero terminal SNR" if prediction.has_zero_snr else ""
    return f"{prediction.type}{zero_snr}"
