"""Models and add-ons in BentoML's model store, found and listed.

`publication.py` moves them in and out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import bentoml
import yaml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from bentoml.exceptions import BentoMLException

from lpw_sdxl.errors import CheckpointError, LpwSdxlError, ModelError
from lpw_sdxl.settings import is_in_container
from lpw_sdxl.store.command import import_command
from lpw_sdxl.store.kind import AddonKind, kind_of_store_name
from lpw_sdxl.store.manifest import MANIFEST_FILE, AnyManifest
from lpw_sdxl.store.verification import Depth, verify_files
from lpw_sdxl.store.volume import NEWEST, VARIABLE, how_to_fill, is_name

DEFAULT_TAG = "sdxl:latest"
LABELS = {"project": "lpw-sdxl", "family": "sdxl"}
"""Labels of every entry; `bentoml models list` shows and filters them."""
KIND_LABEL = "kind"
"""Label of a LoRA's or an embedding's entry: its `AddonKind`."""

STAGING = ".importing"
"""The folder on a volume for what is being made; no entry has such a name."""
_NAMED_AT_MOST = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreEntry:
    """A model or an add-on in the store.

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
    if not is_name(name):
        raise CheckpointError(
            f"The name {name!r} can't be used; 1 to 63 of a-z, 0-9, '.', '_' and '-' are right, "
            "with a letter or digit first and last."
        )
    kind = kind_of_store_name(name)
    if kind is not None:
        raise CheckpointError(
            f"The name {name!r} can't be used for a model: {kind.prefix}... is for the imports of "
            f"`{import_command(kind)}`; use another --name."
        )


def find(tag: str) -> StoreEntry:
    """Return a model of the local store; BentoCloud is not asked.

    Args:
        tag: `NAME` or `NAME:latest` for the newest import, else `NAME:VERSION`.

    Raises:
        ModelError: there is none, the store can't read it, or it is an add-on.
    """
    kind = kind_of_store_name(tag)
    if kind is not None:
        raise ModelError(
            f"{tag} is the tag of {kind.with_article}, and a model is needed, such as "
            f"{_models_named() or DEFAULT_TAG}; requests name the {kind.noun}s."
        )
    return find_entry(tag)


def find_entry(tag: str) -> StoreEntry:
    """Return a model or an add-on of the local store; else like `find`.

    Raises:
        ModelError: there is none, or the store can't read it.
    """
    name, colon, version = tag.partition(":")
    # An empty version, as an unset variable gives it, is not taken for the newest.
    if not is_name(name) or (colon and not is_name(version)):
        raise ModelError(f"{tag!r} is no model tag; NAME or NAME:VERSION is right.")
    try:
        # BentoML's own store of this process: in an image, the one inside the bento.
        model = bentoml.models.get(tag)
    except BentoMLException as error:
        newest = _newest_readable(name) if version in NEWEST else None
        if newest is not None:
            return newest
        if version and (store_directory() / name / version / MANIFEST_FILE).is_file():
            raise _unreadable(tag) from error
        raise _not_found(tag) from error
    except Exception as error:  # a damaged model.yaml may raise anything
        raise _unreadable(tag) from error
    if version not in (*NEWEST, model.tag.version):  # BentoML completes a version's beginning
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
    """Return the add-ons of the store, by name and age."""
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
                verify_files(entry.path, manifest, Depth.SIZES)
            except LpwSdxlError as error:
                logger.info("no whole import of %s is there: %s", entry.tag, error)
            else:
                return manifest
    return None


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


def _unreadable(tag: str) -> ModelError:
    name = tag.partition(":")[0]
    kind = kind_of_store_name(name)
    if kind is not None:
        return ModelError(
            f"The store's entry of {tag} can't be read; import its file again with `"
            + import_command(f"{kind} FILE --name {name.removeprefix(kind.prefix)} --force`.")
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
            return ModelError(f"No model {tag} is in the store; {how_to_import()}.")
        return ModelError(
            f"No model {tag} is in the store, which has {others}; "
            "name one of them (the service takes it from LPW_SDXL_MODEL), or import another."
        )
    same_kind = list_entries(lambda name: kind_of_store_name(name) is kind)
    others = ", ".join(entry.tag for entry in same_kind[-_NAMED_AT_MOST:])
    return ModelError(
        f"No {kind.noun} {tag} is in the store, which has {others or 'none'}; "
        f"`{import_command('list')}` names them all."
    )


def _models_named(name: str = "") -> str:
    """Return the tags of a few models, those of this name last; empty without any."""
    tags = [entry.tag for entry in list_models() if entry.metadata]
    tags.sort(key=lambda tag: tag.startswith(f"{name}:"))
    return ", ".join(tags[-_NAMED_AT_MOST:])


def how_to_import() -> str:
    """Return the end of a sentence about a store without a model."""
    if is_in_container():
        return f"name a folder on a volume in {VARIABLE}, and {how_to_fill()}"
    return f"import one with `{import_command('demo')}` or `{import_command('checkpoint FILE')}`"


def store_directory() -> Path:
    """Return the folder that holds the models; it exists."""
    return Path(BentoMLContainer.model_store_dir.get())


def staging_root() -> Path:
    """Return the folder for what is being made, on the store's file system; it exists."""
    return Path(BentoMLContainer.tmp_bento_store_dir.get())


def store_variable() -> str:
    """Return the environment variable that moves the store elsewhere."""
    return VARIABLE if staging_root().name == STAGING else "BENTOML_HOME"


@contextmanager
def use_volume(folder: Path, staging: Path) -> Iterator[None]:
    """Make a folder on a volume this process's model store, until the block ends.

    BENTOML_HOME stays where it is: BentoML wipes and makes folders there.

    Args:
        folder: that holds NAME/VERSION/.
        staging: the folder for what is being made, STAGING on the same volume.
    """
    with ExitStack() as stack:
        for provider, value in (
            (BentoMLContainer.model_store_dir, str(folder)),
            (BentoMLContainer.tmp_bento_store_dir, str(staging)),
            (BentoMLContainer.model_store, ModelStore(folder)),
        ):
            stack.enter_context(provider.patch(value))
        yield
