"""Models, LoRAs and embeddings in BentoML's model store, found and listed.

`publication.py` moves them in and out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import bentoml
import yaml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLException

from lpw_sdxl.errors import CheckpointError, LpwSdxlError, ModelError
from lpw_sdxl.store.kind import AddonKind, kind_of_store_name
from lpw_sdxl.store.manifest import MANIFEST_FILE, AnyManifest, verify_files

DEFAULT_TAG = "sdxl:latest"
MOUNTED = "mounted"
"""In `bentoml build --arg model=`: the bento has no model, and looks for it when it serves."""
HOW_TO_IMPORT = (
    "import one with `python model_import.py demo` or `python model_import.py checkpoint FILE`"
)

LABELS = {"project": "lpw-sdxl", "family": "sdxl"}
"""Labels of every entry; `bentoml models list` shows and filters them."""
KIND_LABEL = "kind"
"""Label of a LoRA's or an embedding's entry: its `AddonKind`."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_NAMED_AT_MOST = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreEntry:
    """A model, a LoRA or an embedding in the store.

    Attributes:
        tag: `NAME:VERSION`.
        path: its directory.
        metadata: provenance, as it was saved; empty if the store can't read it.
    """

    tag: str
    path: Path
    metadata: Mapping[str, object]

    @property
    def name(self) -> str:
        """Return the tag without its version."""
        return self.tag.partition(":")[0]

    @property
    def kind(self) -> AddonKind | None:
        """Return its kind, which its name alone decides; None for a model."""
        return kind_of_store_name(self.name)


def check_name(name: str) -> None:
    """Check a model's name.

    Raises:
        CheckpointError: it is not a name that the store can keep.
    """
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"The name {name!r} can't be used; 1 to 63 of a-z, 0-9, '.', '_' and '-' are right, "
            "with a letter or digit first and last."
        )
    kind = kind_of_store_name(name)
    if kind is not None:
        raise CheckpointError(
            f"The name {name!r} can't be used for a model: {kind.prefix}... is for the imports of "
            f"`python model_import.py {kind}`; use another --name."
        )


def find(tag: str) -> StoreEntry:
    """Return a model of the local store; BentoCloud is not asked.

    Args:
        tag: `NAME` or `NAME:latest` for the newest import, else `NAME:VERSION`.

    Raises:
        ModelError: there is none, the store can't read it, or it is a LoRA or an embedding.
    """
    kind = kind_of_store_name(tag)
    if kind is not None:
        raise ModelError(
            f"{tag} is the tag of {kind.with_article}, and a model is needed, such as "
            f"{_models_named() or DEFAULT_TAG}; requests name the {kind.noun}s."
        )
    return find_entry(tag)


def find_entry(tag: str) -> StoreEntry:
    """Return a model, a LoRA or an embedding of the local store; else like `find`.

    Raises:
        ModelError: there is none, or the store can't read it.
    """
    name, colon, version = tag.partition(":")
    # An empty version, as an unset variable gives it, is not taken for the newest.
    if not _NAME.fullmatch(name) or (colon and not _NAME.fullmatch(version)):
        raise ModelError(f"{tag!r} is no model tag; NAME or NAME:VERSION is right.")
    try:
        # BentoML's own store of this process: in an image, the one inside the bento.
        model = bentoml.models.get(tag)
    except BentoMLException as error:
        newest = _newest_readable(name) if version in ("", "latest") else None
        if newest is not None:
            return newest
        if version and (store_directory() / name / version / MANIFEST_FILE).is_file():
            raise _unreadable(tag) from error
        raise _not_found(tag) from error
    except Exception as error:  # a damaged model.yaml may raise anything
        raise _unreadable(tag) from error
    if version not in ("", "latest", model.tag.version):  # BentoML completes a version's beginning
        raise _not_found(tag)
    return StoreEntry(str(model.tag), Path(model.path), model.info.metadata)


def _newest_readable(name: str) -> StoreEntry | None:
    """Return the newest model of a name where BentoML gives up on a damaged one beside it."""
    entries = list_entries(lambda other: other == name)
    return next((entry for entry in reversed(entries) if entry.metadata), None)


def list_entries(is_wanted: Callable[[str], bool] = lambda _: True) -> list[StoreEntry]:
    """Return everything in the store that this project imported, by name and age.

    What BentoML can't read is left out, unless it has our manifest: then it is ours, and damaged.

    Args:
        is_wanted: returns by the name alone whether entries are asked for. To read one takes
            BentoML milliseconds, and there may be hundreds.
    """
    entries = []
    for path in sorted(store_directory().glob("*/*/")):
        if not is_wanted(path.parent.name):
            continue
        tag = f"{path.parent.name}:{path.name}"
        try:
            model = bentoml.models.get(tag)
        except Exception:  # noqa: BLE001 - a foreign or broken file may raise anything
            if (path / MANIFEST_FILE).is_file():
                entries.append((path.parent.name, 0.0, StoreEntry(tag, path, {})))
            continue
        if model.info.labels.get("project") == LABELS["project"]:
            age = model.creation_time.timestamp()
            entries.append((model.tag.name, age, StoreEntry(tag, path, model.info.metadata)))
    return [entry for _, _, entry in sorted(entries, key=lambda known: known[:2])]


def list_addons() -> list[StoreEntry]:
    """Return the LoRAs and embeddings of the store, by name and age."""
    return list_entries(lambda name: kind_of_store_name(name) is not None)


def list_models() -> list[StoreEntry]:
    """Return the models of the store, by name and age."""
    return list_entries(lambda name: kind_of_store_name(name) is None)


def find_whole(
    read: Callable[[Path], AnyManifest],
    is_named: Callable[[str], bool],
    metadata: Mapping[str, str],
) -> AnyManifest | None:
    """Return the manifest of the first whole entry with these metadata, or None.

    A half-made or damaged one counts as none. Sizes alone are checked, so that the answer is quick;
    `verify TAG` reads every byte.

    Args:
        read: reads the manifest of an entry's directory.
        is_named: returns whether an entry of this name may be the one.
        metadata: values that the store must have of it.
    """
    for entry in list_entries(is_named):
        if all(entry.metadata.get(key) == value for key, value in metadata.items()):
            try:
                manifest = read(entry.path)
                verify_files(entry.path, manifest, contents=False)
            except LpwSdxlError as error:
                logger.info("no whole import of %s is there: %s", entry.tag, error)
            else:
                return manifest
    return None


def served_tag(setting: str, argument: str, folder: Path) -> str:
    """Return the tag to serve: the setting, else the build's argument, else the bento's own model.

    Args:
        setting: `LPW_SDXL_MODEL`, or empty.
        argument: `bentoml build --arg model=TAG`, or empty.
        folder: where service.py lies; in a bento, `bento.yaml` lies above it.
    """
    if argument == MOUNTED:
        return setting or DEFAULT_TAG
    if setting or argument:
        return setting or argument
    tags = bento_tags(folder)
    if tags is None:
        return DEFAULT_TAG
    return next(tag for tag in tags if kind_of_store_name(tag) is None)


def bento_tags(folder: Path) -> list[str] | None:
    """Return the tags of all that the bento holds, or None outside of one.

    Args:
        folder: where service.py lies; in a bento, `bento.yaml` lies above it.
    """
    bento_file = folder.parent / "bento.yaml"
    if not bento_file.is_file():
        return None
    services = yaml.safe_load(bento_file.read_text(encoding="utf-8"))["services"]
    return [str(model["tag"]) for model in services[0]["models"]]


def find_served(setting: str, argument: str, folder: Path) -> StoreEntry:
    """Return the model to serve; the arguments are those of `served_tag`.

    While a bento without a model is built there need be none, and the entry is an empty one.

    Raises:
        ModelError: there is none, or the store can't read it.
    """
    if argument == MOUNTED and bento_tags(folder) is None:
        return StoreEntry(MOUNTED, Path(), {})
    return find(served_tag(setting, argument, folder))


def _unreadable(tag: str) -> ModelError:
    name = tag.partition(":")[0]
    kind = kind_of_store_name(name)
    if kind is not None:
        return ModelError(
            f"The store's entry of {tag} can't be read; import its file again with `python "
            f"model_import.py {kind} FILE --name {name.removeprefix(kind.prefix)} --force`."
        )
    return ModelError(
        f"The store's entry of {tag} can't be read; import its checkpoint again with "
        f"--name {name} --force."
    )


def _not_found(tag: str) -> ModelError:
    """Return the error for an entry that is not there, with a few tags that are."""
    kind = kind_of_store_name(tag)
    if kind is None:
        others = _models_named(tag.partition(":")[0])
        if not others:
            return ModelError(f"No model {tag} is in the store; {HOW_TO_IMPORT}.")
        return ModelError(
            f"No model {tag} is in the store, which has {others}; "
            "name one of them (the service takes it from LPW_SDXL_MODEL), or import another."
        )
    same_kind = list_entries(lambda name: kind_of_store_name(name) is kind)
    others = ", ".join(entry.tag for entry in same_kind[-_NAMED_AT_MOST:])
    return ModelError(
        f"No {kind.noun} {tag} is in the store, which has {others or 'none'}; "
        f"`python model_import.py list` names them all."
    )


def _models_named(name: str = "") -> str:
    """Return the tags of a few models, those of this name last; empty without any."""
    tags = [entry.tag for entry in list_models() if entry.metadata]
    tags.sort(key=lambda tag: tag.startswith(f"{name}:"))
    return ", ".join(tags[-_NAMED_AT_MOST:])


def store_directory() -> Path:
    """Return the folder that holds the models; it exists."""
    return Path(BentoMLContainer.model_store_dir.get())


def staging_root() -> Path:
    """Return BentoML's folder for what is being made; it exists."""
    return Path(BentoMLContainer.tmp_bento_store_dir.get())
