"""An add-on's file whose header is judged: what it is and what it fits.

Reads no weights. The steps that differ between LoRAs and embeddings are all here; `upscaler.py` has
those of upscalers.
"""

# ruff: noqa: PLC0415 - the conversions need torch, and come last

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lpw_sdxl.addon.fit import LoraFit, check_widths, fit_embedding, fit_lora, order_pair
from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.addon.opened_addon import OpenedAddon
from lpw_sdxl.addon.upscaler import judge_upscaler, open_upscaler
from lpw_sdxl.checkpoint.kinds import CheckpointKind, kind_of
from lpw_sdxl.checkpoint.notes import header_notes
from lpw_sdxl.embedding import preflight as embedding_preflight
from lpw_sdxl.embedding.preflight import EmbeddingPlan
from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.peft_config import CONFIG_FILE
from lpw_sdxl.lora.plan import NO_CHOICES, LoraChoices, LoraSummary
from lpw_sdxl.lora.preflight import examine
from lpw_sdxl.lora.targets import TargetModules, signature
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.files import file_stamp
from lpw_sdxl.weights.header import CheckpointHeader, read_header
from lpw_sdxl.weights.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

_ENCODERS = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)


def open_addon(
    kind: AddonKind,
    path: Path,
    model: str | None = None,
    full_size: int | None = None,
    choices: LoraChoices = NO_CHOICES,
) -> OpenedAddon:
    """Read a file's header and find the model that it fits.

    Args:
        kind: what it must be.
        path: the file.
        model: tag of the model that it must fit; None for any of the store's, or SDXL's own; an
            upscaler fits all.
        full_size: as in `read_header`, for a file that is still being downloaded.
        choices: the user's for a LoRA.

    Raises:
        AddonError: it is of another kind, or fits no such model.
        CheckpointError: it is damaged, or no safetensors file.
        ModelError: the model is not in the store.
    """
    # Taken first: a file that is replaced meanwhile must not pass for the one that was judged.
    stamp = file_stamp(path)
    if kind is AddonKind.UPSCALER:
        return open_upscaler(path, stamp, full_size)
    if kind is AddonKind.LORA:
        beside = path.with_name(CONFIG_FILE)
        stamps = {path: stamp, beside: file_stamp(beside)}
        header = read_header(path, full_size)
        _refuse_other(header)
        return _opened_lora(header, stamps, fit_lora(header, model, choices))
    header = read_header(path, full_size)
    plan = embedding_preflight.examine(header)
    name = fit_embedding(header, plan, model)
    return _opened_embedding(header, plan, (path,), {path: stamp}, name)


def open_for(kind: AddonKind, header: CheckpointHeader, targets: TargetModules) -> OpenedAddon:
    """Judge a file for one model; its `stamps` are those of now.

    Args:
        kind: what it must be.
        header: of the file.
        targets: the model's modules.

    Raises:
        AddonError: it is of another kind, or doesn't fit.
        UnsupportedCheckpointError: it is something else, or for another base model.
    """
    stamps = {path: file_stamp(path) for path in (header.path, header.path.with_name(CONFIG_FILE))}
    if kind is AddonKind.UPSCALER:
        return judge_upscaler(header, stamps[header.path])
    if kind is AddonKind.LORA:
        _refuse_other(header)
        fit = LoraFit("", signature(targets), examine(header, targets))
        return _opened_lora(header, stamps, fit)
    plan = embedding_preflight.examine(header)
    check_widths(header, plan, targets)
    return _opened_embedding(header, plan, (header.path,), stamps, "")


def open_pair(
    path: Path, second: Path, model: str | None = None, full_size: int | None = None
) -> OpenedAddon:
    """Read the headers of an embedding's two files and find the model that they fit.

    Args:
        path: the file of one text encoder, either of the two.
        second: the file of the other one, which is whole.
        model: as in `open_addon`.
        full_size: as in `read_header`, of `path`.

    Raises:
        AddonError: they are no pair, or fit no such model.
        CheckpointError: one is damaged, or no safetensors file.
        ModelError: the model is not in the store.
    """
    stamps = {path: file_stamp(path), second: file_stamp(second)}
    headers = order_pair(read_header(path, full_size), read_header(second), model)
    plan = embedding_preflight.examine_pair(*headers)
    sizes = [header.file_size for header in headers]
    tensors = {
        component.value: tensor for component, tensor in zip(_ENCODERS, plan.tensors, strict=True)
    }
    header = replace(headers[0], file_size=sum(sizes), tensors=tensors)
    sources = headers[0].path, headers[1].path
    return _opened_embedding(header, plan, sources, stamps, fit_embedding(header, plan, model))


def lora_details(summary: LoraSummary, ignored: Mapping[str, int]) -> AddonDetails:
    """Return what is in a LoRA's file; `ignored` counts the tensors of no use by their reason."""
    return AddonDetails(
        kinds=summary.kinds,
        naming=summary.naming,
        ranks=summary.ranks,
        alphas=summary.alphas,
        modules={component.value: count for component, count in summary.modules.items() if count},
        ignored=ignored,
        alpha_note=summary.alpha_note,
        alpha_file=summary.alpha_file,
        asked_alpha=summary.asked_alpha,
    )


def _refuse_other(header: CheckpointHeader) -> None:
    """Refuse a file that is recognised and no LoRA."""
    found = kind_of(header.tensors, header.metadata)
    if found not in (CheckpointKind.LORA, CheckpointKind.UNKNOWN):
        raise AddonError(f"{header.name} is {found.title}; a LoRA for SDXL is needed.")


def _opened_lora(header: CheckpointHeader, stamps: Mapping[Path, str], fit: LoraFit) -> OpenedAddon:
    summary = fit.plan.summary
    if not fit.plan.has_config_beside:
        stamps = {header.path: stamps[header.path]}

    def write(path: Path, progress: Progress) -> None:
        from lpw_sdxl.lora.convert import convert

        convert(fit.plan, path, progress)

    def load() -> Mapping[str, Tensor]:
        from lpw_sdxl.lora.convert import load

        return load(fit.plan)

    def check() -> None:
        from lpw_sdxl.lora.convert import check

        check(fit.plan)

    return OpenedAddon(
        kind=AddonKind.LORA,
        header=header,
        sources=(header.path,),
        stamps=stamps,
        details=lora_details(summary, fit.plan.ignored),
        notes=summary.notes,
        fits=fit.signature,
        fits_name=fit.name,
        write=write,
        load=load,
        check=check,
    )


def _opened_embedding(
    header: CheckpointHeader,
    plan: EmbeddingPlan,
    sources: tuple[Path, ...],
    stamps: Mapping[Path, str],
    fits_name: str,
) -> OpenedAddon:
    def write(path: Path, progress: Progress) -> None:
        from lpw_sdxl.embedding.convert import convert

        convert(plan, path, progress)

    def load() -> Mapping[str, Tensor]:
        from lpw_sdxl.embedding.convert import load

        return load(plan)

    return OpenedAddon(
        kind=AddonKind.EMBEDDING,
        header=header,
        sources=sources,
        stamps={source: stamps[source] for source in sources},
        details=AddonDetails(naming=plan.naming, vectors=plan.vectors),
        notes=header_notes(header),
        fits=plan.fit,
        fits_name=fits_name,
        write=write,
        load=load,
        check=load,
    )
