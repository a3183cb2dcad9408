"""Which model a service serves: its own, the volume's, or the one of BentoML's local store.

What a bento was built with comes first; a checkout, or a bento without a model, looks on the volume
first. docs/operations.md has the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lpw_sdxl.errors import ModelError
from lpw_sdxl.store.entries import (
    DEFAULT_TAG,
    StoreEntry,
    bento_tags,
    find,
    list_models,
)
from lpw_sdxl.store.kind import kind_of_store_name
from lpw_sdxl.store.volume import VARIABLE, Volume, how_to_fill

MOUNTED = "mounted"
"""In `bentoml build --arg model=`: the bento has no model, and looks for it when it serves."""


@dataclass(frozen=True)
class ServedModel:
    """The model to serve.

    Attributes:
        entry: where it is.
        is_built_in: whether a bento that is built now carries it.
    """

    entry: StoreEntry
    is_built_in: bool


def find_served(setting: str, argument: str, folder: Path, volume: Volume | None) -> ServedModel:
    """Return the model to serve.

    While a bento without a model is built there need be none, and the entry is an empty one.

    Args:
        setting: `LPW_SDXL_MODEL`, or empty.
        argument: `bentoml build --arg model=TAG`, or empty.
        folder: where service.py lies; in a bento, `bento.yaml` lies above it.
        volume: that `LPW_SDXL_STORE` names, or None.

    Raises:
        ModelError: there is none, or it can't be read.
        SettingsError: the volume can't be read.
    """
    tags = bento_tags(folder)
    if argument == MOUNTED and tags is None:
        return ServedModel(StoreEntry(MOUNTED, Path(), {}), is_built_in=False)
    own = _own_tag(argument, tags)
    if volume is None or (own and not setting):
        return ServedModel(find(setting or own or DEFAULT_TAG), is_built_in=argument != MOUNTED)
    if own:
        return _own_else_volume(setting, volume)
    entry = _on_volume_by_default(setting, volume)
    if entry is not None:
        return ServedModel(entry, is_built_in=False)
    return ServedModel(_local(setting, volume), is_built_in=argument != MOUNTED)


def _own_tag(argument: str, tags: list[str] | None) -> str:
    """Return the tag of the model that a service was, or is being, built with; empty for none."""
    if argument:
        return "" if argument == MOUNTED else argument
    return next((tag for tag in tags or () if kind_of_store_name(tag) is None), "")


def _own_else_volume(tag: str, volume: Volume) -> ServedModel:
    try:
        return ServedModel(find(tag), is_built_in=True)
    except ModelError:
        entry = _on_volume(tag, volume)
        if entry is None:
            raise
        return ServedModel(entry, is_built_in=False)


def _on_volume_by_default(setting: str, volume: Volume) -> StoreEntry | None:
    """Return the volume's model of this tag; without one its `sdxl`, else the only one it has."""
    entry = _on_volume(setting or DEFAULT_TAG, volume)
    if entry or setting:
        return entry
    names = volume.model_names()
    if len(names) > 1:
        raise ModelError(
            f"{VARIABLE} names {volume.folder}, which has the models {', '.join(names)} and no "
            f"{DEFAULT_TAG}; name one of them in LPW_SDXL_MODEL."
        )
    return _on_volume(names[0], volume) if names else None


def _local(setting: str, volume: Volume) -> StoreEntry:
    """Return the model of BentoML's own store."""
    try:
        return find(setting or DEFAULT_TAG)
    except ModelError as error:
        if list_models() or kind_of_store_name(setting) is not None:
            raise
        raise ModelError(_none_anywhere(setting, volume)) from error


def _on_volume(tag: str, volume: Volume) -> StoreEntry | None:
    directory = volume.find_model(tag)
    if directory is None:
        return None
    return StoreEntry(f"{directory.parent.name}:{directory.name}", directory, {})


def _none_anywhere(setting: str, volume: Volume) -> str:
    names = volume.model_names()
    what = f"model {setting}" if setting else "model"
    if names:
        return (
            f"No {what} is in {volume.folder}, which {VARIABLE} names and which has "
            f"{', '.join(names)}; name one of them in LPW_SDXL_MODEL, or import another."
        )
    return f"No {what} is in {volume.folder}, which {VARIABLE} names; {how_to_fill()}."
