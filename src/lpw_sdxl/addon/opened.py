"""A LoRA's or an embedding's file whose header was judged: what it is and what it fits.

Reads no weights. The steps that differ between the two kinds are all here.
"""

# ruff: noqa: PLC0415 - the conversions need torch, and come last

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lpw_sdxl.addon.fit import fit_embedding, fit_lora
from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.checkpoint.kinds import CheckpointKind, kind_of
from lpw_sdxl.checkpoint.notes import header_notes
from lpw_sdxl.embedding import preflight as embedding_preflight
from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.plan import LoraSummary
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.files import file_stamp
from lpw_sdxl.weights.header import CheckpointHeader, read_header
from lpw_sdxl.weights.progress import Progress

Write = Callable[[Path, Progress], None]


@dataclass(frozen=True)
class OpenedAddon:
    """A file that can be imported.

    Attributes:
        kind: what it is.
        header: the file's.
        stamps: the file with its `file_stamp` before it was read.
        details: what is in it, as far as the header has it.
        notes: its author's, as the header has them.
        fits: as in the manifest.
        fits_name: as in the manifest.
        write: writes the entry's file.
    """

    kind: AddonKind
    header: CheckpointHeader
    stamps: Mapping[Path, str]
    details: AddonDetails
    notes: AuthorNotes
    fits: str
    fits_name: str
    write: Write


def open_addon(
    kind: AddonKind, path: Path, model: str | None = None, full_size: int | None = None
) -> OpenedAddon:
    """Read a file's header and find the model that it fits.

    Args:
        kind: what it must be.
        path: the file.
        model: tag of the model that it must fit; None for any of the store's, or SDXL's own.
        full_size: as in `read_header`, for a file that is still being downloaded.

    Raises:
        AddonError: it is of another kind, or fits no such model.
        CheckpointError: it is damaged, or no safetensors file.
        ModelError: the model is not in the store.
    """
    # Taken first: a file that is replaced meanwhile must not pass for the one that was judged.
    stamps = {path: file_stamp(path)}
    open_kind = {AddonKind.LORA: _open_lora, AddonKind.EMBEDDING: _open_embedding}[kind]
    return open_kind(read_header(path, full_size), stamps, model)


def lora_details(summary: LoraSummary, ignored: Mapping[str, int]) -> AddonDetails:
    """Return what is in a LoRA's file; `ignored` counts the tensors of no use by their reason."""
    return AddonDetails(
        kinds=summary.kinds,
        naming=summary.naming,
        ranks=summary.ranks,
        alphas=summary.alphas,
        modules={component.value: count for component, count in summary.modules.items() if count},
        ignored=ignored,
    )


def _open_lora(
    header: CheckpointHeader, stamps: Mapping[Path, str], model: str | None
) -> OpenedAddon:
    found = kind_of(header.tensors, header.metadata)
    if found not in (CheckpointKind.LORA, CheckpointKind.UNKNOWN):
        raise AddonError(f"{header.name} is {found.title}; a LoRA for SDXL is needed.")
    fit = fit_lora(header, model)
    summary = fit.plan.summary

    def write(path: Path, progress: Progress) -> None:
        from lpw_sdxl.lora.convert import convert

        convert(fit.plan, path, progress)

    return OpenedAddon(
        kind=AddonKind.LORA,
        header=header,
        stamps=stamps,
        details=lora_details(summary, fit.plan.ignored),
        notes=summary.notes,
        fits=fit.signature,
        fits_name=fit.name,
        write=write,
    )


def _open_embedding(
    header: CheckpointHeader, stamps: Mapping[Path, str], model: str | None
) -> OpenedAddon:
    plan = embedding_preflight.examine(header)
    name = fit_embedding(header, plan, model)

    def write(path: Path, progress: Progress) -> None:
        from lpw_sdxl.embedding.convert import convert

        convert(plan, path, progress)

    return OpenedAddon(
        kind=AddonKind.EMBEDDING,
        header=header,
        stamps=stamps,
        details=AddonDetails(naming=plan.naming, vectors=plan.vectors),
        notes=header_notes(header),
        fits=plan.fit,
        fits_name=name,
        write=write,
    )
