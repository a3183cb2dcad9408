"""The add-ons that fit a model; no torch until one of them is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lpw_sdxl.addon.catalogue import Catalogue
from lpw_sdxl.addon.entry import EntrySource, Fits
from lpw_sdxl.addon.loose_folder import LooseFolder
from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.addon.served import AddonPlaces
from lpw_sdxl.embedding.preflight import embedding_fit
from lpw_sdxl.errors import CheckpointError, ModelError
from lpw_sdxl.lora.targets import TargetModules, encoder_widths, read_targets, signature
from lpw_sdxl.store.kind import AddonKind


class _Model(NamedTuple):
    """The model that is served, as its add-ons see it."""

    targets: TargetModules
    fits: Fits


def find_installed(model_directory: Path, directories: Iterable[Path]) -> Registry:
    """Read the add-ons in some directories, and keep those that fit a model.

    Args:
        model_directory: of the model that is served.
        directories: each one entry's.

    Raises:
        ModelError: the model's own files are damaged.
    """
    listed = [*directories]
    source = EntrySource(lambda: listed, _read_model(model_directory).fits)
    return Registry.of([source.look()])


def open_catalogue(model_directory: Path, places: AddonPlaces) -> Catalogue:
    """Return the add-ons in these places that fit a model, as they change.

    Args:
        model_directory: of the model that is served.
        places: where they are.

    Raises:
        ModelError: the model's own files are damaged.
    """
    model = _read_model(model_directory)
    own = EntrySource(lambda: places.built_in, model.fits)
    stores = [EntrySource(store.list_addons, model.fits) for store in places.stores]
    folders = (
        (AddonKind.EMBEDDING, places.embedding_folder),
        (AddonKind.LORA, places.lora_folder),
        (AddonKind.UPSCALER, places.upscaler_folder),
    )
    readers: Sequence[LooseFolder] = [
        LooseFolder(kind, folder, model.targets) for kind, folder in folders if folder is not None
    ]
    if not (stores or readers):
        return Catalogue(first=Registry.of([own.look()]))
    return Catalogue([own, *stores], readers)


def _read_model(directory: Path) -> _Model:
    try:
        targets = read_targets(directory)
    except CheckpointError as error:
        raise ModelError(f"The model to serve is damaged: {error}") from error
    fits = Fits(signature(targets), embedding_fit(*encoder_widths(targets)))
    return _Model(targets, fits)
