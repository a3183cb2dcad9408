"""The list of a model directory's files with sizes and SHA-256, and what the model is.

It is written last, so a directory without it is half-made. Standard library only: the service
checks it before anything heavy is imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from lpw_sdxl.errors import ModelError
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.weights.files import FileRecord, hash_file

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 2
DEMO_SOURCE = "demo"
"""Of the demo checkpoint, which comes with the repository."""
NOT_LISTED = frozenset({MANIFEST_FILE, "model.yaml"})
"""Files that a manifest can't list: itself, and the model store's own note, which is not ours."""

_HASH_THREADS = 4


@dataclass(frozen=True)
class Manifest:
    """What a model directory holds and where it came from.

    Attributes:
        name: the model's name in the store.
        source: where the checkpoint came from, such as `civitai:128078`; no query, no key.
        source_file: name of the checkpoint's file, without its folder.
        source_size: of the checkpoint's file, bytes.
        source_sha256: of the checkpoint's file.
        title: what its makers call it, or empty.
        base_model: the family the checkpoint belongs to.
        trained_words: words that it was trained to react to.
        native_size: pixels; the default of a request.
        dtype: torch's name of the weights' dtype, such as `float16`.
        prediction_type: Diffusers' name of what the UNet predicts.
        zero_terminal_snr: whether the noise schedule ends in pure noise.
        ema: whether the UNet has the checkpoint's averaged weights.
        vae: name and SHA-256 of the file that the VAE was taken from, or empty for the checkpoint.
        ignored: number of unused tensors by the reason that they are harmless.
        created: when it was imported, ISO 8601 in UTC.
        importer_version: our version at that time.
        files: every other file by its path within the directory, with `/` between parts.
    """

    name: str
    source: str
    source_file: str
    source_size: int
    source_sha256: str
    title: str
    base_model: str
    trained_words: tuple[str, ...]
    native_size: ImageSize
    dtype: str
    prediction_type: str
    zero_terminal_snr: bool
    ema: bool
    vae: str
    ignored: Mapping[str, int]
    created: str
    importer_version: str
    files: Mapping[str, FileRecord]

    @property
    def tag(self) -> str:
        """Return the entry's tag in the store."""
        return make_tag(self.name, self.source_sha256)

    @property
    def autov2(self) -> str:
        """Return the short hash that Civitai and A1111 call a checkpoint by."""
        return self.source_sha256[:10].upper()

    def describe(self) -> dict[str, object]:
        """Return what the model is as plain JSON values, without its files."""
        values = asdict(self) | {
            "native_size": str(self.native_size),
            "trained_words": list(self.trained_words),
            "source_autov2": self.autov2,
        }
        del values["files"]
        return values


def make_tag(name: str, source_sha256: str) -> str:
    """Return the tag of an entry: its name and the first 12 digits of its SHA-256."""
    return f"{name}:{source_sha256[:12]}"


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest in one move: it is there whole, or not at all."""
    content = asdict(manifest) | {
        "format_version": FORMAT_VERSION,
        "native_size": manifest.native_size._asdict(),
        "files": {path: record._asdict() for path, record in sorted(manifest.files.items())},
    }
    write_json(directory / MANIFEST_FILE, content)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a file of JSON in one move and to the disk, its names sorted."""
    partial = path.with_name(f"{path.name}.part")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_manifest(directory: Path) -> Manifest:
    """Read a model directory's manifest.

    Raises:
        ModelError: it is missing, of another format version, or damaged.
    """
    path = directory / MANIFEST_FILE
    try:
        content = json.loads(path.read_bytes())
        version = content.pop("format_version")
    except OSError as error:
        raise _unusable(directory, f"has no {MANIFEST_FILE} that can be read") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(directory, f"has a damaged {MANIFEST_FILE}") from error
    if version != FORMAT_VERSION:
        raise _unusable(directory, f"has a manifest of another format ({version!r:.20})")
    try:
        return Manifest(
            **content
            | {
                "native_size": ImageSize(**content["native_size"]),
                "trained_words": tuple(content["trained_words"]),
                "files": {key: FileRecord(**value) for key, value in content["files"].items()},
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _unusable(directory, f"has a damaged {MANIFEST_FILE}") from error


def list_files(directory: Path) -> dict[str, Path]:
    """Return every file that a manifest lists, by its path within the directory, sorted."""
    paths = sorted(path for path in directory.rglob("*") if not path.is_dir())
    names = {path.relative_to(directory).as_posix(): path for path in paths}
    return {name: path for name, path in names.items() if name not in NOT_LISTED}


def verify_files(directory: Path, manifest: Manifest, *, contents: bool = True) -> None:
    """Check that a directory holds exactly what its manifest lists.

    Args:
        directory: the model directory.
        manifest: its manifest.
        contents: whether SHA-256 is checked too; without it, names and sizes only.

    Raises:
        ModelError: a file is missing, unexpected or different; the first one is named.
    """
    flaw = find_flaw(directory, manifest.files, contents=contents)
    if flaw:
        raise _unusable(directory, flaw, manifest)


def find_flaw(directory: Path, files: Mapping[str, FileRecord], *, contents: bool) -> str:
    """Say in what a directory differs first from the list of its files.

    Args:
        directory: the entry's directory.
        files: what its manifest lists.
        contents: whether SHA-256 is checked too; without it, names and sizes only.

    Returns:
        The end of a sentence that begins with the entry's name, or an empty text.
    """
    found = list_files(directory)
    for name in sorted(files.keys() - found.keys()):
        return f"lacks its file {name}"
    for name in sorted(found.keys() - files.keys()):
        return f"holds {name}, which its manifest doesn't list"
    for name, path in found.items():
        size, right = path.stat().st_size, files[name].size
        if size != right:
            return f"has {size:,} bytes in {name}; {right:,} would be right"
    if not contents:
        return ""
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        for name, digest in zip(found, pool.map(hash_file, found.values()), strict=True):
            if digest != files[name].sha256:
                return f"has other bytes in {name} than were imported"
    return ""


def _unusable(directory: Path, what: str, manifest: Manifest | None = None) -> ModelError:
    name = directory.parent.name
    if manifest is not None and manifest.source == DEMO_SOURCE:
        command = "demo --force"
    else:
        command = f"checkpoint FILE --name {name}{_options(manifest)} --force"
    return ModelError(
        f"The model {name}:{directory.name} {what}; import its checkpoint again with "
        f"`python model_import.py {command}`."
    )


def _options(manifest: Manifest | None) -> str:
    """Write the options that an import was made with, but for those that are the defaults."""
    if manifest is None:
        return ""
    flags = {"bfloat16": " --dtype bf16", "float32": " --dtype fp32"}
    vae = f" --vae {manifest.vae.partition(',')[0]}" if manifest.vae else ""
    return flags.get(manifest.dtype, "") + (" --ema" if manifest.ema else "") + vae
