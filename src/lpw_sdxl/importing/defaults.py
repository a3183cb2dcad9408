"""A model's own defaults on the command line: read, set, removed, shown and suggested."""

# ruff: noqa: PLC0415 - what is heavy is imported by the commands that need it

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lpw_sdxl.errors import CheckpointError, InvalidRequestError
from lpw_sdxl.importing.known_families import find_family
from lpw_sdxl.model_defaults import (
    DEFAULT_FIELDS,
    ModelDefaults,
    read_assignments,
    write_assignment,
)
from lpw_sdxl.request_limits import check_defaults
from lpw_sdxl.store.command import import_command
from lpw_sdxl.store.manifest import Manifest


def read_defaults(texts: Iterable[str], known: ModelDefaults | None = None) -> ModelDefaults:
    """Read `FIELD=VALUE` texts as defaults that fit each other.

    Args:
        texts: of the command line.
        known: which they replace or add to.

    Raises:
        CheckpointError: one can't be a default; the message names it and what would be right.
    """
    written = {} if known is None else known.as_json()
    try:
        defaults = ModelDefaults.read(written | read_assignments(texts))
        check_defaults(defaults)
    except InvalidRequestError as error:
        raise CheckpointError(f"This default can't be set: {error.message}.") from error
    return defaults


def set_defaults(arguments: argparse.Namespace) -> None:
    """Change a model's defaults in its manifest, in one move, and print all that it has."""
    from lpw_sdxl.store.entries import find
    from lpw_sdxl.store.manifest import read_manifest
    from lpw_sdxl.store.publication import exclusive_import, rewrite_manifest

    changes = bool(arguments.assignments or arguments.remove)
    entry = find(arguments.tag)
    if changes:
        with exclusive_import() as workshop:
            manifest = _changed(read_manifest(entry.path), arguments)
            rewrite_manifest(entry.path, manifest, workshop)
    manifest = read_manifest(entry.path)
    if not manifest.defaults:
        print("It has no defaults of its own; its requests have ours.")
    for assignment in _assignments(manifest.request_defaults):
        print(assignment)
    if changes:
        print("A service that runs has them when it is started anew.")
    print(entry.tag)


def _changed(manifest: Manifest, arguments: argparse.Namespace) -> Manifest:
    """Return a manifest with other defaults.

    Raises:
        CheckpointError: one can't be set, or is to be removed and is not there.
    """
    known = dict(manifest.defaults)
    for field in arguments.remove:
        if field not in known:
            there = ", ".join(known) or "none"
            raise CheckpointError(f"{manifest.tag} has no default of {field}; it has {there}.")
        del known[field]
    try:
        kept = ModelDefaults.read(known)
    except InvalidRequestError as error:
        raise CheckpointError(
            f"A default that is there can't be used: {error.message}; --remove {error.field}"
            " removes it."
        ) from error
    return replace(manifest, defaults=read_defaults(arguments.assignments, kept).as_json())


def suggestion(manifest: Manifest) -> list[str]:
    """Return the lines that suggest a family's settings; none if it has its own or is unknown."""
    origin = manifest.origin
    texts = (origin.notes.base_model, manifest.name, origin.notes.title, origin.file)
    family = find_family(texts, manifest.prediction_type)
    if family is None or manifest.defaults:
        return []
    words = shlex.join(write_assignment(*one) for one in family.defaults.items())
    return [
        f"This looks like a model of the family {family.name}, for which {family.source} has:",
        f"  {import_command(f'set-defaults {manifest.tag} {words}')}",
    ]


def _assignments(defaults: ModelDefaults) -> Sequence[str]:
    written = defaults.as_json()
    return [
        shlex.quote(write_assignment(name, written[name]))
        for name in DEFAULT_FIELDS
        if name in written
    ]
