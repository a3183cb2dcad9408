"""Models in BentoML's model store, found and listed; `publication.py` moves them in and out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import bentoml
import yaml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLException

from lpw_sdxl.checkpoint.manifest import MANIFEST_FILE
from lpw_sdxl.errors import CheckpointError, ModelError

DEFAULT_TAG = "sdxl:latest"
HOW_TO_IMPORT = (
    "import one with `python model_import.py demo` or `python model_import.py checkpoint FILE`"
)

LABELS = {"project": "lpw-sdxl", "family": "sdxl"}
"""Labels of every entry; `bentoml models list` shows and filters them."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class StoreEntry:
    """A model in the store.

    Attributes:
        tag: `NAME:VERSION`.
        path: its model directory.
        metadata: provenance, as it was saved; empty if the store can't read it.
    """

    tag: str
    path: Path
    metadata: Mapping[str, object]


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


def make_tag(name: str, source_sha256: str) -> str:
    """Return the tag of a checkpoint: its name and the first 12 digits of its SHA-256."""
    return f"{name}:{source_sha256[:12]}"


def find(tag: str) -> StoreEntry:
    """Return a model of the local store; BentoCloud is not asked.

    Args:
        tag: `NAME` or `NAME:latest` for the newest import, else `NAME:VERSION`.

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
    entries = [entry for entry in list_entries() if entry.tag.startswith(f"{name}:")]
    return next((entry for entry in reversed(entries) if entry.metadata), None)


def list_entries() -> list[StoreEntry]:
    """Return every model of the store that this project imported, by name and age.

    What BentoML can't read is left out, unless it has our manifest: then it is ours, and damaged.
    """
    entries = []
    for path in sorted(store_directory().glob("*/*/")):
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


def served_tag(setting: str, argument: str, folder: Path) -> str:
    """Return the tag to serve: the setting, else the build's argument, else the bento's own model.

    Args:
        setting: `LPW_SDXL_MODEL`, or empty.
        argument: `bentoml build --arg model=TAG`, or empty.
        folder: where service.py lies; in a bento, `bento.yaml` lies above it.
    """
    if setting or argument:
        return setting or argument
    bento_file = folder.parent / "bento.yaml"
    if bento_file.is_file():
        services = yaml.safe_load(bento_file.read_text(encoding="utf-8"))["services"]
        return str(services[0]["models"][0]["tag"])
    return DEFAULT_TAG


def _unreadable(tag: str) -> ModelError:
    name = tag.partition(":")[0]
    return ModelError(
        f"The store's entry of {tag} can't be read; import its checkpoint again with "
        f"--name {name} --force."
    )


def _not_found(tag: str) -> ModelError:
    """Say that a model is not there, and what is: first those of the same name."""
    name = tag.partition(":")[0]
    others = [entry.tag for entry in list_entries() if entry.metadata]
    others.sort(key=lambda other: other.startswith(f"{name}:"))
    if others:
        return ModelError(
            f"No model {tag} is in the store, which has {', '.join(others[-_NAMED_AT_MOST:])}; "
            "name one of them (the service takes it from LPW_SDXL_MODEL), or import another."
        )
    return ModelError(f"No model {tag} is in the store; {HOW_TO_IMPORT}.")


def store_directory() -> Path:
    """Return the folder that holds the models; it exists."""
    return Path(BentoMLContainer.model_store_dir.get())


def staging_root() -> Path:
    """Return BentoML's folder for what is being made; it exists."""
    return Path(BentoMLContainer.tmp_bento_store_dir.get())
