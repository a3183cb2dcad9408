"""What LoRAs and embeddings a service offers: a bento its own, a checkout all; a volume more."""

from __future__ import annotations

from pathlib import Path

from lpw_sdxl.errors import ModelError
from lpw_sdxl.store.command import import_command
from lpw_sdxl.store.entries import bento_tags, find_entry, list_addons
from lpw_sdxl.store.kind import kind_of_store_name
from lpw_sdxl.store.volume import Volume


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
                f"as `{import_command('list')}` shows them."
            )
    return [find_entry(name).tag for name in names]


def served_directories(tags: list[str], folder: Path, volume: Volume | None) -> list[Path]:
    """Return the directories of the entries that a service offers.

    Of a name that is in two places, a bento's own comes before the volume's, and the volume's
    before that of a checkout's store.

    Args:
        tags: that the service was built with; outside a bento, none stands for all in the store.
        folder: where service.py lies; in a bento, `bento.yaml` lies above it.
        volume: that `LPW_SDXL_STORE` names, or None.

    Raises:
        ModelError: an entry of the bento is missing.
        SettingsError: the volume can't be read.
    """
    there = volume.addon_directories() if volume else []
    if tags or bento_tags(folder) is not None:
        return _joined([find_entry(tag).path for tag in tags], there)
    return _joined(there, [entry.path for entry in list_addons()])


def _joined(first: list[Path], second: list[Path]) -> list[Path]:
    """Return both, without what the second has of a name of the first."""
    names = {path.parent.name for path in first}
    return [*first, *(path for path in second if path.parent.name not in names)]
