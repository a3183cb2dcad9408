"""What the import of a checkpoint has of its own: selection, conversion, verification."""

# ruff: noqa: PLC0415 - what is heavy is imported by the steps that need it

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from lpw_sdxl import __version__
from lpw_sdxl.checkpoint.inspect import CheckpointSummary, Prediction, PredictionType
from lpw_sdxl.checkpoint.kinds import CheckpointKind
from lpw_sdxl.checkpoint.plan import NO_PART, ConversionPlan
from lpw_sdxl.checkpoint.selection import Checkpoint, Selection, open_checkpoint
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.importing.console import Row
from lpw_sdxl.importing.importer import EntryDraft, ImportOptions, ImportResult
from lpw_sdxl.model_defaults import NO_DEFAULTS, ModelDefaults, write_assignment
from lpw_sdxl.store.command import import_command
from lpw_sdxl.store.manifest import DEMO_SOURCE, UNKNOWN, Manifest, read_manifest
from lpw_sdxl.store.origin import AuthorNotes, Origin
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import hash_file
from lpw_sdxl.weights.progress import Progress
from lpw_sdxl.weights.text import listed

DEFAULT_NAME = "sdxl"
DEMO_DEFAULTS = ModelDefaults.read({"guidance_scale": 2, "num_inference_steps": 20})
"""With more guidance its colours leave the palette; demo/README.md has the figures."""
_LISTED_AT_MOST = 100  # names of tensors in one row
BASE_MODEL = AuthorNotes(base_model="SDXL 1.0")
"""What every checkpoint that is served descends from, where no later family is named."""


@dataclass(frozen=True)
class CheckpointImporter:
    """The import of a single-file checkpoint.

    Attributes:
        options: those of every kind; the name is `sdxl` if none is given.
        selection: which tensors serve.
        dtype: that the weights are kept and run in.
        defaults: of the model's requests.
    """

    options: ImportOptions = field(default_factory=ImportOptions)
    selection: Selection = field(default_factory=Selection)
    dtype: CheckpointDtype = CheckpointDtype.FLOAT16
    defaults: ModelDefaults = NO_DEFAULTS

    @property
    def name(self) -> str:
        """Return the name in the store."""
        return self.options.name or DEFAULT_NAME

    def open(self, path: Path, full_size: int | None = None) -> Checkpoint:
        """Read and judge a file's header, choose its tensors and plan their conversion."""
        return open_checkpoint(path, self.selection, full_size)

    def rows(self, opened: Checkpoint) -> list[Row]:
        """List what a file is, one fact a row."""
        header = opened.header
        return [
            *summary_rows(header.name, header.file_size, opened.summary),
            *left_out_rows(opened.plan, "--ignore-unknown leaves out"),
        ]

    def store_bytes(self, opened: Checkpoint) -> int:
        """Return the size of the weights that will be in the store."""
        return opened.plan.parameter_count * self.dtype.size

    def check_name(self, _opened: Checkpoint | None) -> None:
        """Refuse a name that the store can't keep."""
        from lpw_sdxl.store.entries import check_name

        check_name(self.name)

    def find(self, metadata: Mapping[str, str], _opened: Checkpoint | None) -> Manifest | None:
        """Find the whole model with these metadata and this name.

        Raises:
            CheckpointError: it was made with other options.
        """
        from lpw_sdxl.store.entries import find_whole

        known = find_whole(read_manifest, lambda name: name == self.name, metadata)
        if known is not None:
            self._check_same(known)
        return known

    def draft(self, opened: Checkpoint) -> EntryDraft[Manifest]:
        """Return what the conversion will write."""
        from lpw_sdxl.checkpoint.convert import convert, prepare
        from lpw_sdxl.checkpoint.verify import verify_directory

        conversion = prepare(opened, self.dtype)

        def describe(origin: Origin) -> Manifest:
            return self._describe(opened, origin, conversion.plan.ignored)

        def fill(directory: Path, manifest: Manifest, progress: Progress) -> Manifest:
            files = convert(conversion, directory, progress)
            verify_directory(directory, conversion, progress)
            return replace(manifest, files=files)

        return EntryDraft(conversion.weight_bytes, describe, fill)

    def _describe(self, opened: Checkpoint, origin: Origin, ignored: Mapping[str, int]) -> Manifest:
        """Return the entry's manifest, without the list of its files."""
        prediction = opened.summary.prediction
        return Manifest(
            name=self.name,
            origin=replace(origin, notes=origin.notes.or_else(BASE_MODEL)),
            native_size=opened.summary.native_size,
            dtype=self.dtype.value,
            prediction_type=prediction.type.value,
            zero_terminal_snr=prediction.has_zero_snr,
            schedule_type=opened.summary.schedule_type,
            ema=self.selection.use_ema,
            vae=self._vae_label(),
            ignored=ignored,
            inpainting=opened.summary.kind is CheckpointKind.SDXL_INPAINTING,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            importer_version=__version__,
            files={},
            defaults=self.defaults.as_json(),
        )

    def _vae_label(self) -> str:
        """Return name and SHA-256 of the file that the VAE is taken from, or empty."""
        vae = self.selection.vae
        return "" if vae is None else f"{vae.name}, SHA-256 {hash_file(vae)}"

    def _check_same(self, known: Manifest) -> None:
        """Refuse an entry that was made with other options.

        Where no prediction is given any fits, and where no schedule type is given any fits.

        Whether unknown tensors may be left out makes a difference only where some were.

        Raises:
            CheckpointError: naming the first difference.
        """
        prediction = Prediction(PredictionType(known.prediction_type), known.zero_terminal_snr)
        pairs = (
            (f"dtype {known.dtype}", f"dtype {self.dtype}"),
            (_weights(known.ema), _weights(self.selection.use_ema)),
            (_vae(known.vae), _vae(self._vae_label())),
            (_predicts(prediction), _predicts(self.selection.prediction or prediction)),
            (
                f"schedule type {known.schedule_type}",
                f"schedule type {self.selection.schedule_type or known.schedule_type}",
            ),
            (
                _unknown(known.ignores_unknown),
                _unknown(known.ignores_unknown and self.selection.ignore_unknown),
            ),
        )
        for there, asked in pairs:
            if there != asked:
                raise CheckpointError(
                    f"{known.tag} is imported with {there}, and {asked} is asked for; --force "
                    "replaces it, and --name gives the new one another name."
                )
        if self.defaults and self.defaults.as_json() != known.defaults:
            words = shlex.join(write_assignment(*one) for one in self.defaults.as_json().items())
            command = import_command(f"set-defaults {known.tag} {words}")
            raise CheckpointError(
                f"{known.tag} is imported with other defaults; `{command}` changes them."
            )


def import_demo(path: Path, *, force: bool, progress: Progress) -> ImportResult:
    """Import the demo checkpoint that the repository holds, in float32 and as any other.

    Raises:
        CheckpointError: the file is missing or damaged, or there is no room.
    """
    from lpw_sdxl.importing.entry import import_entry

    if not path.is_file():
        raise CheckpointError(f"{path} is missing; it comes with a clone of the repository.")
    importer = CheckpointImporter(
        ImportOptions(force=force), dtype=CheckpointDtype.FLOAT32, defaults=DEMO_DEFAULTS
    )
    return import_entry(importer, importer.open(path), DEMO_SOURCE, AuthorNotes(), progress)


def summary_rows(file_name: str, file_size: int, summary: CheckpointSummary) -> list[Row]:
    """List what a checkpoint is, one fact a row."""
    dtypes = ", ".join(f"{code} ({count:,})" for code, count in sorted(summary.dtypes.items()))
    rows = [
        ("file", file_name),
        ("is", summary.kind.title),
        ("size", f"{file_size / 1e9:.2f} GB, {file_size:,} bytes"),
        ("tensors", f"{summary.tensor_count:,}, {summary.parameter_count:,} numbers"),
        ("dtypes", dtypes or "none"),
    ]
    if summary.kind.advice:
        return [*rows, ("can't be imported", summary.kind.advice)]
    zero_snr = ", zero terminal SNR" if summary.prediction.has_zero_snr else ""
    is_chosen = summary.chosen_schedule_type is not None
    usual = "" if is_chosen else "; --schedule-type TYPE sets another, as few-step models need"
    assumed = "" if summary.is_size_stated else " (SDXL's own; the file states none)"
    return [
        *rows,
        ("predicts", f"{summary.prediction.type.value}{zero_snr}"),
        ("schedule type", f"{summary.schedule_type}{usual}"),
        ("native size", f"{summary.native_size} pixels{assumed}"),
        ("VAE", "inside" if summary.has_vae else "none inside: --vae FILE adds one"),
        ("EMA weights", "inside: --ema takes them" if summary.has_ema else "none inside"),
    ]


def left_out_rows(plan: ConversionPlan, unknown_title: str) -> list[Row]:
    """List what a plan leaves out: counts by the reason, and names where a reader may object.

    Args:
        plan: of the checkpoint's conversion.
        unknown_title: name of the row of tensors that are under a network's own names.
    """
    reasons = "; ".join(
        f"{reason} ({count:,})"
        for reason, count in plan.ignored.items()
        if not reason.startswith(UNKNOWN)
    )
    rows = [
        ("left out", reasons),
        (NO_PART, listed(plan.left_out.get(NO_PART, ()), _LISTED_AT_MOST)),
        (unknown_title, listed(plan.unknown, _LISTED_AT_MOST)),
    ]
    return [(name, value) for name, value in rows if value]


def _weights(ema: bool) -> str:
    return "EMA weights" if ema else "the UNet's own weights"


def _vae(label: str) -> str:
    sha256 = label.rpartition(" ")[2]  # the file's name doesn't matter
    return f"a VAE with the SHA-256 {sha256}" if label else "the checkpoint's own VAE"


def _unknown(is_ignored: bool) -> str:
    return "--ignore-unknown" if is_ignored else "no tensor left out by --ignore-unknown"


def _predicts(prediction: Prediction) -> str:
    zero_snr = " and zero terminal SNR" if prediction.has_zero_snr else ""
    return f"{prediction.type}{zero_snr}"
