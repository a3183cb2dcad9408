"""What LoRAs and embeddings a service offers: a bento its own, a checkout all; any mounted ones."""

from __future__ import annotations

from pathlib import Path

from lpw_sdxl.errors import ModelError, SettingsError
from lpw_sdxl.store.entries import bento_tags, find_entry, list_addons
from lpw_sdxl.store.kind import kind_of_store_name


def built_in_tags(argument: str, folder: Path) -> list[str]:
    """Return the full tags of what a service was, or is being, built with.

    Args:
        argument: `bentoml build --arg addons=TAG,TAG`. A bento remembers it as it was written,
            where a name without a version may mean another one by now.
        folder: where service.py lies; in a bento, `bento.yaml` lies above it.

    Raises:
        ModelError: one is not in the store, or is neither a LoRA nor an embedding.
    """
    tags = bento_tags(folder)
    if tags is not None:
        return [tag for tag in tags if kind_of_store_name(tag) is not None]
    names = [name.strip() for name in argument.split(",") if name.strip()]
    for name in names:
        if kind_of_store_name(name) is None:
            raise ModelError(
                f"{name} is neither a LoRA nor an embedding; lora-NAME or embedding-NAME is right, "
                "as `python model_import.py list` shows them."
            )
    return [find_entry(name).tag for name in names]


def served_directories(tags: list[str], folder: Path, mounted: Path | None) -> list[Path]:
    """Return the directories of the entries that a service offers.

    Args:
        tags: that the service was built with; outside a bento, none stands for all in the store.
        folder: where service.py lies; in a bento, `bento.yaml` lies above it.
        mounted: the setting `LPW_SDXL_ADDONS`.

    Raises:
        ModelError: an entry of the bento is missing.
        SettingsError: the mounted folder is not there.
    """
    if tags or bento_tags(folder) is not None:
        own = [find_entry(tag).path for tag in tags]
    else:
        own = [entry.path for entry in list_addons()]
    return [*own, *_mounted_directories(mounted)]


def _mounted_directories(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise SettingsError(
            f"LPW_SDXL_ADDONS names {folder}, which is no folder; one that holds NAME/VERSION/, as"
            " BentoML's model store does, would be right"
        )
    return sorted(
        path for path in folder.glob("*/*/") if kind_of_store_name(path.parent.name) is not None
    )
