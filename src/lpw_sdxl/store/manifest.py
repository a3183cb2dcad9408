"""An entry's manifest: its origin, and its files with sizes and digests.

It is written last, so a directory without it is half-made. The service checks it before anything
heavy is imported.
"""

from __future__ import annotations

import json
import os
import shlex
from abc import abstractmethod
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from lpw_sdxl.errors import InvalidRequestError, LpwSdxlError, ModelError
from lpw_sdxl.model_defaults import ModelDefaults, write_assignment
from lpw_sdxl.schedule_types import ScheduleType, usual_schedule_type
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.store.command import import_command
from lpw_sdxl.store.origin import Origin, flatten_origin, lift_origin
from lpw_sdxl.store.unreadable import why_unreadable
from lpw_sdxl.weights.files import FileRecord

MANIFEST_FILE = "manifest.json"
DEMO_SOURCE = "demo"
"""Of the demo checkpoint, which comes with the repository."""
UNKNOWN = "unknown tensors of "
"""The beginning of a reason in `Manifest.ignored`: the user had them left out, unexplained."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class EntryManifest:
    """The contents of an entry of the store, a model or not, and where it came from.

    A base class, because the file that it is kept in has all of it on one level.

    Attributes:
        name: a model's in the store, a LoRA's or an embedding's as users write it.
        origin: the file that it was made from.
        created: when it was imported, ISO 8601 in UTC.
        importer_version: our version at that time.
        files: every other file by its path within the directory, with `/` between parts.
    """

    FORMAT_VERSION: ClassVar[int]

    name: str
    origin: Origin
    created: str
    importer_version: str
    files: Mapping[str, FileRecord]

    @property
    def tag(self) -> str:
        """Return the entry's tag in the store: its name there and 12 digits of its SHA-256."""
        return f"{self.name}:{self.origin.sha256[:12]}"

    @classmethod
    @abstractmethod
    def unusable(cls, directory: Path, what: str, known: Self | None = None) -> LpwSdxlError:
        """Return the error that states what is wrong with an entry and the command that mends it.

        Args:
            directory: the entry's.
            what: the end of a sentence that begins with the entry's name.
            known: its manifest, if that can be read.
        """

    @classmethod
    @abstractmethod
    def unreadable(cls, directory: Path, error: OSError) -> LpwSdxlError:
        """Return the error that states why an entry can't be read, and what would be right."""

    @classmethod
    def complete(cls, values: MutableMapping[str, object]) -> None:
        """Add what the manifests of earlier versions lack.

        Args:
            values: of a manifest's file.
        """

    @property
    def total_bytes(self) -> int:
        """Return the bytes of all its files."""
        return sum(record.size for record in self.files.values())

    def describe(self) -> dict[str, object]:
        """Return what the entry is as plain JSON values, without its files."""
        values = self.flattened()
        del values["files"]
        described: dict[str, object] = json.loads(json.dumps(values))
        return described | {"source_autov2": self.origin.autov2}

    def flattened(self) -> dict[str, object]:
        """Return all values on one level, the origin's among them, as manifest.json has them."""
        values = asdict(self)
        del values["origin"]
        for record in values["files"].values():
            if record["blake3"] is None:
                del record["blake3"]
        return {"name": values.pop("name")} | flatten_origin(self.origin) | values


AnyManifest = TypeVar("AnyManifest", bound=EntryManifest)


@dataclass(frozen=True, kw_only=True)
class Manifest(EntryManifest):
    """The contents of a model directory and where they came from.

    Attributes:
        native_size: pixels; the default of a request.
        dtype: torch's name of the weights' dtype, such as `float16`.
        prediction_type: Diffusers' name of what the UNet predicts.
        zero_terminal_snr: whether the noise schedule ends in pure noise.
        schedule_type: the default of a request.
        ema: whether the UNet has the checkpoint's averaged weights.
        vae: name and SHA-256 of the file that the VAE was taken from, or empty for the checkpoint.
        ignored: number of unused tensors by the reason that they are left out.
        inpainting: whether the UNet sees a mask and what is not masked.
        defaults: of its requests, as JSON has them (`model_defaults`).
    """

    FORMAT_VERSION = 2

    native_size: ImageSize
    dtype: str
    prediction_type: str
    zero_terminal_snr: bool
    schedule_type: ScheduleType
    ema: bool
    vae: str
    ignored: Mapping[str, int]
    inpainting: bool = False  # earlier versions imported no others
    defaults: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def unusable(cls, directory: Path, what: str, known: Self | None = None) -> ModelError:
        """Return the error that states what is wrong with a model and how to import it again."""
        name = directory.parent.name
        if known is not None and known.origin.source == DEMO_SOURCE:
            command = "demo --force"
        else:
            command = f"checkpoint FILE --name {name}{known._options() if known else ''} --force"
        return ModelError(
            f"The model {name}:{directory.name} {what}; import its checkpoint again with "
            f"`{import_command(command)}`."
        )

    @classmethod
    def unreadable(cls, directory: Path, error: OSError) -> ModelError:
        """Return the error that states why a model can't be read, and what would be right."""
        return ModelError(
            f"The model {directory.parent.name}:{directory.name} can't be read: "
            f"{why_unreadable(directory, error)}."
        )

    @classmethod
    def complete(cls, values: MutableMapping[str, object]) -> None:
        """Add the schedule type, which earlier versions could not choose."""
        prediction, zero_snr = (values.get(key) for key in ("prediction_type", "zero_terminal_snr"))
        usual = usual_schedule_type(str(prediction), zero_terminal_snr=zero_snr is True)
        values.setdefault("schedule_type", usual)

    @property
    def request_defaults(self) -> ModelDefaults:
        """Return the model's own defaults of requests.

        Raises:
            ModelError: another version of this program wrote one that is none here.
        """
        try:
            return ModelDefaults.read(self.defaults)
        except InvalidRequestError as error:
            command = f"set-defaults {self.tag} --remove {error.field}"
            raise ModelError(
                f"The model {self.tag} has a default that can't be used: {error.message};"
                f" `{import_command(command)}` removes it."
            ) from error

    @property
    def ignores_unknown(self) -> bool:
        """Return whether tensors were left out that only `--ignore-unknown` leaves out."""
        return any(reason.startswith(UNKNOWN) for reason in self.ignored)

    def describe(self) -> dict[str, object]:
        """Return what the model is as plain JSON values, without its files."""
        return super().describe() | {"native_size": str(self.native_size)}

    def _options(self) -> str:
        """Write the options that an import was made with, but for those that are the defaults."""
        flags = {"bfloat16": " --dtype bf16", "float32": " --dtype fp32"}
        vae = f" --vae {self.vae.partition(',')[0]}" if self.vae else ""
        usual = usual_schedule_type(self.prediction_type, zero_terminal_snr=self.zero_terminal_snr)
        schedule = f" --schedule-type {self.schedule_type}" if self.schedule_type != usual else ""
        unknown = " --ignore-unknown" if self.ignores_unknown else ""
        ema = " --ema" if self.ema else ""
        defaults = "".join(
            f" --default {shlex.quote(write_assignment(*one))}" for one in self.defaults.items()
        )
        return flags.get(self.dtype, "") + ema + vae + schedule + unknown + defaults


def write_manifest(directory: Path, manifest: EntryManifest) -> None:
    """Write a manifest in one move: it is there whole, or not at all."""
    content = manifest.flattened() | {"format_version": manifest.FORMAT_VERSION}
    if isinstance(manifest, Manifest):
        content["native_size"] = manifest.native_size._asdict()
    write_json(directory / MANIFEST_FILE, content)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a file of JSON in one move and to the disk, its names sorted."""
    partial = path.with_name(f"{path.name}.part")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_manifest(directory: Path) -> Manifest:
    """Read a model directory's manifest.

    Raises:
        ModelError: it is missing, of another format version, or damaged.
    """
    return read_entry(Manifest, directory)


def read_entry(kind: type[AnyManifest], directory: Path) -> AnyManifest:
    """Read an entry's manifest; what is wrong with it is raised as its `unusable`."""
    try:
        content = (directory / MANIFEST_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise kind.unusable(directory, f"has no {MANIFEST_FILE} that can be read") from error
    except OSError as error:
        raise kind.unreadable(directory, error) from error
    try:
        values = _JSON.validate_json(content)
        version = values.pop("format_version", None)
        if version != kind.FORMAT_VERSION:
            raise kind.unusable(directory, f"has a manifest of another format ({version!r:.20})")
        values["origin"] = lift_origin(values)
        kind.complete(values)
        return TypeAdapter(kind).validate_python(values)
    except (ValidationError, RecursionError, KeyError) as error:
        raise kind.unusable(directory, f"has a damaged {MANIFEST_FILE}") from error


_JSON: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])
