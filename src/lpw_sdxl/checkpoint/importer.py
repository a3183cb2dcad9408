"""The import: from a checkpoint file to a verified entry of the model store."""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lpw_sdxl import __version__
from lpw_sdxl.checkpoint import store
from lpw_sdxl.checkpoint.convert import Conversion, Progress, convert
from lpw_sdxl.checkpoint.dtypes import DTYPE_BYTES, CheckpointDtype
from lpw_sdxl.checkpoint.header import CheckpointHeader
from lpw_sdxl.checkpoint.inspect import CheckpointSummary, read_header, recognise
from lpw_sdxl.checkpoint.manifest import (
    Manifest,
    hash_file,
    read_manifest,
    verify_files,
    write_manifest,
)
from lpw_sdxl.checkpoint.synthetic import SyntheticSize, write_checkpoint
from lpw_sdxl.checkpoint.verify import verify_directory
from lpw_sdxl.errors import CheckpointError, ModelError
from lpw_sdxl.schema import ImageSize

BASE_MODEL = "SDXL 1.0"
DEMO_SIZE = ImageSize(height=128, width=128)
DEMO_FILE = "lpw-sdxl-demo.safetensors"

_SPARE_BYTES = 64 * 1024 * 1024
"""Configuration, tokenizers and the file system's own needs."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportOptions:
    """How a checkpoint is imported.

    Attributes:
        name: of the model in the store.
        dtype: that its weights are kept and run in.
        sha256: what the file's SHA-256 must be, or None.
        force: whether an entry of the same tag is replaced.
    """

    name: str = "sdxl"
    dtype: CheckpointDtype = CheckpointDtype.FLOAT16
    sha256: str | None = None
    force: bool = False


@dataclass(frozen=True)
class ImportResult:
    """The entry's tag, and whether it was there before."""

    tag: str
    was_known: bool


def import_checkpoint(path: Path, options: ImportOptions, progress: Progress) -> ImportResult:
    """Import a checkpoint into the model store; a failure leaves the store as it was.

    Raises:
        UnsupportedCheckpointError: the file is of a kind that is not served.
        CheckpointError: the file is damaged or not the expected one, or there is no room.
    """
    store.check_name(options.name)
    store.check_volume()
    header = read_header(path)
    summary = recognise(header)
    progress("hash", 0, header.file_size)
    source_sha256 = _checked_sha256(header, options.sha256)
    progress("hash", header.file_size, header.file_size)
    tag = store.make_tag(options.name, source_sha256)
    if not options.force and _is_known(tag, options.dtype):
        return ImportResult(tag, was_known=True)
    _check_space(header, options.dtype)
    metadata = _metadata(header, summary, source_sha256, options.dtype)
    with store.publication(tag, store.LABELS, metadata) as entry:
        conversion = convert(header, entry.directory, dtype=options.dtype, progress=progress)
        verify_directory(entry.directory, options.dtype)
        manifest = _manifest(header, summary, source_sha256, options, conversion)
        write_manifest(entry.directory, manifest)
        entry.publish()
    return ImportResult(tag, was_known=False)


def import_demo(*, force: bool, progress: Progress) -> ImportResult:
    """Make the demo checkpoint, a tiny random model, and import it like any other."""
    options = ImportOptions(dtype=CheckpointDtype.FLOAT32, force=force)
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-demo-") as folder:
        path = Path(folder) / DEMO_FILE
        write_checkpoint(
            path, SyntheticSize.TINY, dtype=CheckpointDtype.FLOAT32, native_size=DEMO_SIZE
        )
        return import_checkpoint(path, options, progress)


def _checked_sha256(header: CheckpointHeader, expected: str | None) -> str:
    found = hash_file(header.path)
    if expected is not None and found != expected:
        raise CheckpointError(
            f"{header.path.name} has the SHA-256 {found}; {expected} was asked for: "
            "download it again, or correct --sha256."
        )
    return found


def _is_known(tag: str, dtype: CheckpointDtype) -> bool:
    """Tell whether the store has this import; a half-made or damaged one counts as none.

    Sizes alone are checked, so that the answer is quick; `verify TAG` reads every byte.

    Raises:
        CheckpointError: the entry is there in another dtype.
    """
    try:
        entry = store.find(tag)
        manifest = read_manifest(entry.path)
        verify_files(entry.path, manifest, contents=False)
    except ModelError as error:
        logger.info("no whole import of %s is there: %s", tag, error)
        return False
    if manifest.dtype != dtype.value:
        raise CheckpointError(
            f"{tag} is imported in {manifest.dtype}; --force replaces it with {dtype.value}."
        )
    return True


def _check_space(header: CheckpointHeader, dtype: CheckpointDtype) -> None:
    numbers = sum((t.end - t.start) // DTYPE_BYTES[t.dtype] for t in header.tensors.values())
    needed = numbers * DTYPE_BYTES[dtype.code] + _SPARE_BYTES
    free = shutil.disk_usage(store.store_volume()).free
    if free < needed:
        raise CheckpointError(
            f"The model store's disk has {free / 1e9:.1f} GB free and this import needs "
            f"{needed / 1e9:.1f} GB; make room, or set BENTOML_HOME to a larger disk."
        )


def _metadata(
    header: CheckpointHeader, summary: CheckpointSummary, sha256: str, dtype: CheckpointDtype
) -> dict[str, object]:
    return {
        "base_model": BASE_MODEL,
        "source_file": header.path.name,
        "source_sha256": sha256,
        "source_tensors": summary.tensor_count,
        "native_size": str(summary.native_size),
        "dtype": dtype.value,
        "prediction_type": summary.prediction_type.value,
        "importer_version": __version__,
    }


def _manifest(
    header: CheckpointHeader,
    summary: CheckpointSummary,
    sha256: str,
    options: ImportOptions,
    conversion: Conversion,
) -> Manifest:
    return Manifest(
        name=options.name,
        source_file=header.path.name,
        source_sha256=sha256,
        native_size=summary.native_size,
        dtype=options.dtype.value,
        prediction_type=summary.prediction_type.value,
        base_model=BASE_MODEL,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        importer_version=__version__,
        files=conversion.files,
    )
