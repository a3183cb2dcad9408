"""The files of a volume of RunPod's, as an old setup or another program left them.

It only looks; what is imported where is decided in `model.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lpw_sdxl.checkpoint.selection import Selection, open_checkpoint
from lpw_sdxl.errors import LpwSdxlError
from lpw_sdxl.store.kind import kind_of_store_name, slug

MOUNTS = (Path("/runpod-volume"), Path("/workspace"))
"""Where RunPod mounts a volume: of a serverless worker, and of a pod."""
STORE = "lpw-sdxl"
"""The folder on a volume that models are imported into."""
CHECKPOINT_FOLDERS = ("models/checkpoints", "checkpoints", "models/stable-diffusion", "models", ".")
"""Where checkpoints may lie: the old setup's, ComfyUI's, A1111's. Sub-folders are not looked into.
"""
ADDON_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "LPW_SDXL_LORA_DIR": ("models/loras", "loras", "models/lora", "lora"),
    "LPW_SDXL_EMBEDDING_DIR": ("models/embeddings", "embeddings"),
    "LPW_SDXL_UPSCALER_DIR": ("models/upscale_models", "upscale_models", "models/esrgan"),
}
"""Settings, and the folders that are taken for each: the first that is there, in any case."""
SUFFIX = ".safetensors"
_DIFFUSERS_FILE = "model_index.json"


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint that can be imported.

    Attributes:
        name: that its import has, and LPW_SDXL_MODEL names it by.
        path: of the file.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class Found:
    """The models of a volume.

    Attributes:
        checkpoints: by name.
        unfit: files that are none, each with the reason in a sentence.
        diffusers: folders in Diffusers' layout, which the import does not read.
    """

    checkpoints: Mapping[str, FoundCheckpoint]
    unfit: Mapping[Path, str]
    diffusers: tuple[Path, ...]


def find_volume(mounts: tuple[Path, ...] = MOUNTS) -> Path | None:
    """Return the volume; None where there is none."""
    return next((path for path in mounts if path.is_dir()), None)


def find_folder(volume: Path, name: str) -> Path | None:
    """Return a folder of a volume by its name with slashes, in upper or lower case."""
    folder = volume
    for part in Path(name).parts:
        found = [one for one in _entries(folder) if one.name.lower() == part and one.is_dir()]
        if not found:
            return None
        folder = found[0]
    return folder


def find_addon_folders(volume: Path) -> dict[str, str]:
    """Return the settings of the folders of add-ons that are there."""
    found: dict[str, str] = {}
    for variable, names in ADDON_FOLDERS.items():
        folders = (find_folder(volume, name) for name in names)
        folder = next((one for one in folders if one is not None), None)
        if folder is not None:
            found[variable] = str(folder)
    return found


def find_models(volume: Path) -> Found:
    """Read the headers of the files that may be checkpoints.

    Of several whose names differ by case and such alone, each but the first has a number.
    """
    checkpoints: dict[str, FoundCheckpoint] = {}
    unfit: dict[Path, str] = {}
    for path in _candidates(volume):
        try:
            open_checkpoint(path, Selection())
        except (LpwSdxlError, OSError) as error:
            unfit[path] = str(error)
            continue
        name = _free_name(path, checkpoints)
        checkpoints[name] = FoundCheckpoint(name, path)
    models = find_folder(volume, "models") or volume
    diffusers = tuple(one for one in _entries(models) if (one / _DIFFUSERS_FILE).is_file())
    return Found(checkpoints, unfit, diffusers)


def _candidates(volume: Path) -> Iterator[Path]:
    seen = set()
    for name in CHECKPOINT_FOLDERS:
        folder = find_folder(volume, name)
        for path in _entries(folder) if folder else ():
            if path.suffix.lower() == SUFFIX and path.is_file() and path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _free_name(path: Path, taken: Mapping[str, FoundCheckpoint]) -> str:
    name = slug(path.stem) or "model"
    if kind_of_store_name(name) is not None:
        name = f"model-{name}"
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder, by name; nothing where it can't be read."""
    try:
        return sorted(one for one in folder.iterdir() if not one.name.startswith("."))
    except OSError:
        return []
