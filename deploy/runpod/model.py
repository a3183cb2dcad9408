"""Which model a worker on RunPod serves, and its import onto the volume where that is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from deploy.runpod.lease import lease
from deploy.runpod.volume import SUFFIX, Found, FoundCheckpoint, find_models
from lpw_sdxl.download.source import LocalSource, parse_source, read_kinds
from lpw_sdxl.errors import ModelError, SettingsError
from lpw_sdxl.store.kind import slug
from lpw_sdxl.store.manifest import DEMO_SOURCE, MANIFEST_FILE, read_manifest
from lpw_sdxl.store.volume import Volume, entries_folder

DEFAULT_NAME = "sdxl"
LEASE_FILE = ".start"
NO_PLACE = (
    "and there is no volume at /runpod-volume or /workspace; a volume with a checkpoint in"
    " models/checkpoints, or an image built with --build-arg CHECKPOINT=civitai:VERSION_ID, would"
    " be right"
)
BEYOND = "or LPW_SDXL_CHECKPOINT with civitai:VERSION_ID, an https URL or demo"


@dataclass(frozen=True)
class Wish:
    """The owner's wish for a model.

    Attributes:
        model: the setting LPW_SDXL_MODEL; empty for any.
        checkpoint: the setting LPW_SDXL_CHECKPOINT; empty for none.
    """

    model: str = ""
    checkpoint: str = ""


@dataclass(frozen=True)
class Places:
    """The places of models.

    Attributes:
        image: folder of the models that the image was built with; it need not be there.
        store: folder that models are imported into, on a volume; likewise. None for none.
        volume: where checkpoints may lie; None for nowhere.
    """

    image: Path
    store: Path | None
    volume: Path | None


def choose_model(wish: Wish, places: Places) -> str:
    """Return the tag of the model to serve, after its import if it is not there yet.

    Returns:
        empty for the one that the service finds by itself.

    Raises:
        SettingsError: there is none, or several; the message names what is there.
        ModelError: the import failed.
        CheckpointError: LPW_SDXL_CHECKPOINT is no source.
    """
    present = find_present(wish, places)
    if present is not None:
        return present
    if places.store is None:
        wanted = " ".join(one for one in (wish.model, wish.checkpoint) if one)
        what = f"the model {wanted} is not in this image" if wanted else "this image has no model"
        raise SettingsError(f"{what}, {NO_PLACE}")
    words, name = _plan_import(wish, places.volume)
    try:
        places.store.mkdir(parents=True, exist_ok=True)
        with lease(places.store / LEASE_FILE):
            present = find_present(wish, places)  # another worker may have imported it meanwhile
            if present is None:
                _run_import(words, places.store)
    except OSError as error:
        raise SettingsError(
            f"a model has to be imported into {places.store}, which can't be written to"
            f" ({error.strerror}); a volume that is mounted for writing would be right"
        ) from error
    return present or name


def find_present(wish: Wish, places: Places) -> str | None:
    """Return the tag of a model that is there; None if there is none that is wished for."""
    image = _open(places.image)
    store = _open(places.store)
    if wish.model:
        name = _own_name(wish.model)
        stores = [one for one in (store, image) if one is not None]
        tags = (tag for tag in (wish.model, name) for one in stores if one.find_model(tag))
        return next(tags, None)
    if wish.checkpoint:
        source = wish.checkpoint
        is_demo = source == DEMO_SOURCE
        public = DEMO_SOURCE if is_demo else parse_source(source, read_kinds()).public
        origins = chain(_origins(store), _origins(image))
        return next((tag for tag, origin in origins if origin == public), None)
    if image and (names := image.model_names()):
        return names[0]
    return "" if store and store.model_names() else None


def _open(folder: Path | None) -> Volume | None:
    if folder is None or not folder.is_dir():
        return None
    return Volume(entries_folder(folder))


def _origins(store: Volume | None) -> Iterator[tuple[str, str]]:
    """Yield the tag and the source of each model of a store."""
    for name in store.model_names() if store else ():
        for path in sorted((store.folder / name).iterdir()) if store else ():
            if (path / MANIFEST_FILE).is_file():
                yield f"{name}:{path.name}", read_manifest(path).origin.source


def _own_name(wanted: str) -> str:
    """Return the name that a file has in a store, where the owner names the file."""
    return slug(wanted.removesuffix(":latest").removesuffix(SUFFIX))


def _plan_import(wish: Wish, volume: Path | None) -> tuple[list[str], str]:
    """Return the words of the import, and the name that its model will have."""
    if wish.checkpoint == DEMO_SOURCE:
        return [DEMO_SOURCE], DEFAULT_NAME
    if wish.checkpoint:
        name = wish.model.partition(":")[0] or DEFAULT_NAME
        is_download = not isinstance(parse_source(wish.checkpoint, read_kinds()), LocalSource)
        words = ["checkpoint", wish.checkpoint, "--name", name]
        return [*words, "--remove-source"] if is_download else words, name
    chosen = _choose_checkpoint(wish.model, volume)
    return ["checkpoint", str(chosen.path), "--name", chosen.name], chosen.name


def _choose_checkpoint(wanted: str, volume: Path | None) -> FoundCheckpoint:
    """Return the volume's checkpoint of a name, or the only one."""
    found = Found({}, {}, ()) if volume is None else find_models(volume)
    names = ", ".join(found.checkpoints)
    if wanted:
        chosen = found.checkpoints.get(wanted) or found.checkpoints.get(_own_name(wanted))
        if chosen is None and names:
            raise SettingsError(
                f"LPW_SDXL_MODEL is {wanted}, and {volume} has the checkpoints {names}; one of"
                " these names would be right"
            )
    else:
        chosen = next(iter(found.checkpoints.values()), None)
        if len(found.checkpoints) > 1:
            raise SettingsError(
                f"{volume} has the checkpoints {names}; one of these names in LPW_SDXL_MODEL would"
                " be right"
            )
    if chosen is None:
        raise SettingsError(f"{_nothing(found, volume)}, {BEYOND}, would be right")
    return chosen


def _nothing(found: Found, volume: Path | None) -> str:
    """Return the beginning of a sentence about a volume without a checkpoint."""
    right = "an SDXL checkpoint as one .safetensors file in models/checkpoints"
    if found.unfit:
        path, reason = next(iter(found.unfit.items()))
        return (
            f"{volume} has no checkpoint that is served ({path.name}: {reason.rstrip('.')});"
            f" {right}"
        )
    if found.diffusers:
        path = found.diffusers[0]
        return (
            f"{path} is a model in Diffusers' layout, which the import does not read; {right}, such"
            " as the one that it was made from"
        )
    return f"{volume} has no model; {right}"


def _run_import(words: Sequence[str], store: Path) -> None:
    command = [sys.executable, "-m", "lpw_sdxl", *words]
    done = subprocess.run(  # noqa: S603 - our own import
        command, env={**os.environ, "LPW_SDXL_STORE": str(store)}, check=False
    )
    if done.returncode:
        wanted = DEMO_SOURCE if words == [DEMO_SOURCE] else words[1]
        raise ModelError(f"{wanted} could not be imported, for the reason in the line above")
