"""Where the add-ons of a service are: a bento's own, stores, folders of files."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lpw_sdxl.errors import ModelError, SettingsError
from lpw_sdxl.settings import Settings
from lpw_sdxl.store.command import import_command
from lpw_sdxl.store.entries import bento_tags, find_entry, store_directory
from lpw_sdxl.store.kind import kind_of_store_name
from lpw_sdxl.store.manifest import MANIFEST_FILE
from lpw_sdxl.store.volume import Volume

_OUR_LABEL = "project: lpw-sdxl"


@dataclass(frozen=True)
class AddonStore:
    """A folder of entries, NAME/VERSION/, as BentoML's store of models is."""

    root: Path

    def list_addons(self) -> list[Path]:
        """Return the directories of its add-ons, as they are now, by name.

        Only names and files' places are looked at: it is asked twice a second.

        Raises:
            OSError: the store can't be read now.
        """
        found: list[Path] = []
        for folder in sorted(self.root.iterdir()):
            if kind_of_store_name(folder.name) is not None:
                with suppress(NotADirectoryError, FileNotFoundError):
                    found += sorted(path for path in folder.iterdir() if path.is_dir())
        return [path for path in found if _is_ours(path)]


@dataclass(frozen=True)
class AddonPlaces:
    """The places of the add-ons that a service offers; of a name, the first one's.

    Attributes:
        built_in: directories of the entries that it was built with, which never change.
        stores: where more may come.
        lora_folder: of LoRAs' files, as their authors made them; None for none.
        embedding_folder: likewise of embeddings.
        upscaler_folder: likewise of upscalers.
    """

    built_in: tuple[Path, ...] = ()
    stores: tuple[AddonStore, ...] = ()
    lora_folder: Path | None = None
    embedding_folder: Path | None = None
    upscaler_folder: Path | None = None


def built_in_tags(argument: str, folder: Path) -> list[str]:
    """Return the full tags of what a service was, or is being, built with.

    Args:
        argument: `bentoml build --arg addons=TAG,TAG`. A bento remembers it as it was written,
            where a name without a version may mean another one by now.
        folder: where service.py lies; in a bento, `bento.yaml` lies above it.

    Raises:
        ModelError: one is not in the store, or is no add-on.
    """
    tags = bento_tags(folder)
    if tags is not None:
        return [tag for tag in tags if kind_of_store_name(tag) is not None]
    names = [name.strip() for name in argument.split(",") if name.strip()]
    for name in names:
        if kind_of_store_name(name) is None:
            raise ModelError(
                f"{name} is no LoRA, embedding or upscaler; lora-NAME, embedding-NAME or "
                f"upscaler-NAME is right, as `{import_command('list')}` shows them."
            )
    return [find_entry(name).tag for name in names]


def find_places(
    tags: list[str], folder: Path, settings: Settings, volume: Volume | None
) -> AddonPlaces:
    """Return where a service's add-ons are.

    Of a name that is in two places, a bento's own comes before the volume's, and the volume's
    before that of a checkout's store.

    Args:
        tags: that the service was built with; outside a bento, none stands for all in the store.
        folder: where service.py lies; in a bento, `bento.yaml` lies above it.
        settings: which name folders of files.
        volume: that `LPW_SDXL_STORE` names, or None.

    Raises:
        ModelError: an entry of the bento is missing.
        SettingsError: a folder is not there, or can't be read.
    """
    own = tuple(find_entry(tag).path for tag in tags)
    stores = [AddonStore(volume.folder)] if volume else []
    if not tags and bento_tags(folder) is None:
        stores.append(AddonStore(store_directory()))
    for variable, path in (
        ("LPW_SDXL_LORA_DIR", settings.lora_dir),
        ("LPW_SDXL_EMBEDDING_DIR", settings.embedding_dir),
        ("LPW_SDXL_UPSCALER_DIR", settings.upscaler_dir),
    ):
        if path is not None:
            _check_folder(variable, path)
    return AddonPlaces(
        own, tuple(stores), settings.lora_dir, settings.embedding_dir, settings.upscaler_dir
    )


def _check_folder(variable: str, path: Path) -> None:
    """Refuse what can't be looked into.

    Raises:
        SettingsError: it is no folder, or this user may not read it.
    """
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise SettingsError(
            f"{variable} names {path}, which can't be looked into ({error.strerror}); a folder of"
            " .safetensors files that this user can read would be right"
        ) from error


def _is_ours(path: Path) -> bool:
    """Return whether an entry is one of this project's, whole or damaged."""
    try:
        if (path / MANIFEST_FILE).is_file():
            return True
        return _OUR_LABEL in (path / "model.yaml").read_text(encoding="utf-8", errors="replace")
    except PermissionError:
        return True  # its name is of ours, and what reads it names what is closed
    except OSError:
        return False
