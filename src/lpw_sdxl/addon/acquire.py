"""The import of a LoRA or an embedding, as `checkpoint/acquire.py` drives it, and its rows."""

# ruff: noqa: PLC0415 - what knows the store is imported by the steps that need it

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.checkpoint.console import Row
from lpw_sdxl.checkpoint.kinds import CheckpointKind, kind_of
from lpw_sdxl.checkpoint.notes import header_origin
from lpw_sdxl.checkpoint.options import ImportResult
from lpw_sdxl.embedding import preflight as embedding_preflight
from lpw_sdxl.errors import LpwSdxlError
from lpw_sdxl.lora.preflight import describe_file
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.store.space import gigabytes
from lpw_sdxl.weights.header import CheckpointHeader
from lpw_sdxl.weights.progress import Progress

if TYPE_CHECKING:
    from lpw_sdxl.addon.importer import AddonOptions
    from lpw_sdxl.addon.opened import OpenedAddon

_SHOWN_AT_MOST = 8


@dataclass(frozen=True)
class AddonTask:
    """A LoRA or an embedding is imported.

    Attributes:
        options: how.
    """

    options: AddonOptions

    @property
    def sha256(self) -> str | None:
        """What the file's SHA-256 must be."""
        return self.options.sha256

    def open(self, path: Path, full_size: int | None = None) -> OpenedAddon:
        """Read and judge a file's header."""
        from lpw_sdxl.addon.importer import choose_name
        from lpw_sdxl.addon.opened import open_addon

        opened = open_addon(self.options.kind, path, self.options.model, full_size)
        choose_name(self.options, opened.header)  # a bad one is told before the download goes on
        return opened

    def rows(self, opened: OpenedAddon) -> list[Row]:
        """Say what a file is."""
        rows = _rows(opened.header, opened.kind, opened.details, opened.told)
        return [*rows, ("fits", opened.fits_name)]

    def store_bytes(self, opened: OpenedAddon) -> int:
        """Return about the size of what will be in the store."""
        return opened.header.file_size

    def find(self, sha256: str | None) -> ImportResult | None:
        """Find an import of the file with this SHA-256."""
        from lpw_sdxl.addon.importer import find_imported

        return find_imported(sha256, self.options)

    def run(self, opened: OpenedAddon, origin: Origin, progress: Progress) -> ImportResult:
        """Import a file."""
        from lpw_sdxl.addon.importer import import_addon

        return import_addon(opened, self.options, origin, progress)


def inspect_rows(header: CheckpointHeader) -> list[Row] | None:
    """Say what a LoRA or an embedding is, and what a LoRA fits; None for another kind of file."""
    kind = kind_of(header.tensors, header.metadata)
    if kind is CheckpointKind.LORA:
        return _inspect_lora(header)
    if kind is CheckpointKind.EMBEDDING:
        return _inspect_embedding(header)
    return None


def _inspect_lora(header: CheckpointHeader) -> list[Row]:
    from lpw_sdxl.addon.fit import fit_lora
    from lpw_sdxl.addon.opened import lora_details, lora_origin

    summary = describe_file(header)
    details = lora_details(summary, {})
    rows = _rows(header, AddonKind.LORA, details, lora_origin(header, summary))
    try:
        fit = fit_lora(header, None)
    except LpwSdxlError as error:
        return [*rows, ("can't be imported", str(error))]
    return [
        *rows,
        ("fits", fit.name),
        ("import it with", f"python model_import.py {AddonKind.LORA} FILE"),
    ]


def _inspect_embedding(header: CheckpointHeader) -> list[Row]:
    plan = embedding_preflight.examine(header)
    details = AddonDetails(naming=plan.naming, vectors=plan.vectors)
    return [
        *_rows(header, AddonKind.EMBEDDING, details, header_origin(header)),
        ("text encoders", f"of the widths {plan.widths[0]} and {plan.widths[1]}"),
        ("import it with", f"python model_import.py {AddonKind.EMBEDDING} FILE"),
    ]


def _rows(
    header: CheckpointHeader, kind: AddonKind, details: AddonDetails, told: Origin
) -> list[Row]:
    """Say what a file is and holds, leaving out what doesn't belong to the kind or nobody tells."""
    kinds = ", ".join(details.kinds)
    rows = [
        ("file", header.name),
        ("is", f"{kind.with_article} ({kinds})" if kinds else kind.with_article),
        ("size", f"{gigabytes(header.file_size)}, {header.file_size:,} bytes"),
        ("names", details.naming),
        ("modules", _counts(details.modules)),
        ("rank", _numbers(details.ranks)),
        ("alpha", _numbers(details.alphas)),
        ("vectors", str(details.vectors or "")),
        ("left out", _counts(details.ignored)),
        ("title", told.title),
        ("base model", told.base_model),
        ("trained words", ", ".join(told.trained_words)),
    ]
    return [(name, value) for name, value in rows if value]


def _counts(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{name} ({count})" for name, count in counts.items())


def _numbers(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:_SHOWN_AT_MOST])
    return f"{shown}, ..." if len(values) > _SHOWN_AT_MOST else shown
