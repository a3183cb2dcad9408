"""Whether the model store has this import already, found without converting anything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from lpw_sdxl.checkpoint.inspect import Prediction, PredictionType
from lpw_sdxl.checkpoint.options import ImportOptions
from lpw_sdxl.checkpoint.selection import Selection
from lpw_sdxl.errors import CheckpointError, LpwSdxlError
from lpw_sdxl.store import entries
from lpw_sdxl.store.manifest import Kind, Manifest, verify_files
from lpw_sdxl.weights.files import hash_file

IDENTITY = "source_identity"
"""The store entry's note of which file it was made from, by `weights.files.file_stamp`."""
SHA256 = "source_sha256"
"""Its note of that file's SHA-256."""

logger = logging.getLogger(__name__)


def find_whole(
    read: Callable[[Path], Kind], is_named: Callable[[str], bool], notes: Mapping[str, str]
) -> Kind | None:
    """Return the manifest of the first whole entry with these notes.

    A half-made or damaged one counts as none. Sizes alone are checked, so that the answer is quick;
    `verify TAG` reads every byte.

    Args:
        read: reads the manifest of an entry's directory.
        is_named: tells by an entry's name whether it may be the one.
        notes: what the store must know of it.
    """
    for entry in entries.list_entries(is_named):
        if all(entry.metadata.get(note) == value for note, value in notes.items()):
            try:
                manifest = read(entry.path)
                verify_files(entry.path, manifest, contents=False)
            except LpwSdxlError as error:
                logger.info("no whole import of %s is there: %s", entry.tag, error)
            else:
                return manifest
    return None


def check_same(known: Manifest, options: ImportOptions, selection: Selection) -> None:
    """Check that a known import was made with these options; a prediction not given is any.

    Raises:
        CheckpointError: it was made with others; the first difference is named.
    """
    prediction = Prediction(PredictionType(known.prediction_type), known.zero_terminal_snr)
    pairs = (
        (f"dtype {known.dtype}", f"dtype {options.dtype}"),
        (_weights(known.ema), _weights(selection.use_ema)),
        (_vae(known.vae), _vae(vae_label(selection))),
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


def _weights(ema: bool) -> str:
    return "EMA weights" if ema else "the UNet's own weights"


def _vae(label: str) -> str:
    sha256 = label.rpartition(" ")[2]  # the file's name doesn't matter
    return f"a VAE with the SHA-256 {sha256}" if label else "the checkpoint's own VAE"


def _predicts(prediction: Prediction) -> str:
    zero_snr = " and zero terminal SNR" if prediction.has_zero_snr else ""
    return f"{prediction.type}{zero_snr}"
